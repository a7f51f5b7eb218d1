"""Study of strangers' files: faults of every kind, and what is said of them."""
