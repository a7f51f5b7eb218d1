"""Fit defences to clean recordings or images, and apply purifiers to files."""
