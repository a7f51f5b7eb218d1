"""Studies: what the toolkit was measured to do. A client of the library, like any other."""
