"""Attacks: one protocol, kept libraries inside, promises checked on return."""
