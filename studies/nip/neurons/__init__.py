"""The published NIP method, taken apart."""
