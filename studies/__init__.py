"""Studies that measure what the toolkit does; they use the library like any other client."""
