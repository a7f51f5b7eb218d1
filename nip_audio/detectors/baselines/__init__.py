"""Published detectors that NCCR (neuron coverage change rate) is compared with, for any input."""
