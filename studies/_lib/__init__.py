"""What the studies share: pages written from results."""
