"""Study of detecting adversarial audio by neuron coverage change rates (NCCR)."""
