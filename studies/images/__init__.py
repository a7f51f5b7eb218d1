"""The same methods on images."""
