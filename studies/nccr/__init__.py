"""Detection of adversarial audio by neuron coverage change rates (NCCR)."""
