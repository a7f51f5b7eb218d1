"""How long it takes to set the project up and to start a command."""
