"""Modality-free core: batches, instrumented models, influence, NCCR, metrics, saved state."""
