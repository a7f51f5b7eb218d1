"""Attacks on the shipped speaker models: what fools them, and what stands against it."""
