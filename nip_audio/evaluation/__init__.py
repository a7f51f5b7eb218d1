"""Evaluation: adversarial files on disk, and what was measured on them."""
