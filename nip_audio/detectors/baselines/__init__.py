"""Published detectors that NCCR is to beat, under the same protocol; no audio in here."""
