"""Purification by neuron-level inverse perturbation (NIP), beside other defences."""
