"""Studies of the parts of the published NIP method (neuron-level inverse perturbation)."""
