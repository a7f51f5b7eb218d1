"""Speed, memory and findings of the screening command."""
