"""Where files are measured: here, or on many machines. What comes out is the same."""
