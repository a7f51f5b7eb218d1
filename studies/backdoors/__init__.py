"""Backdoors in training sets: poisoned models, and the search for the poison."""
