"""Purifiers at work on audio: fitted to clean recordings, and applied to files."""
