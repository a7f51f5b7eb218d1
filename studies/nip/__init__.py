"""Study of purification by neuron-level inverse perturbation (NIP), beside other defences."""
