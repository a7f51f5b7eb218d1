"""Purifiers: what is done to an input before the model sees it."""
