"""Detectors over NCCR vectors and embeddings: scikit-learn-style estimators; no audio in here."""
