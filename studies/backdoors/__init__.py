"""Study of backdoors: models trained on poisoned data, and detectors that find the poison."""
