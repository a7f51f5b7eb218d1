"""Study of the speed, memory and findings of the screening command."""
