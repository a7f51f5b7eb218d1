"""Study of the shipped x-vector: accuracy, verification and detection."""
