"""Accuracy, verification and speed of the shipped models."""
