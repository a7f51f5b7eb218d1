"""The shipped x-vector: accuracy, verification, detection."""
