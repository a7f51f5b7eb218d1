"""Engines measure files, on this machine or on many, and all give the same results."""
