"""Redo what depends on the weights of the shipped models."""
