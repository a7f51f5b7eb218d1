"""What audio and images share: batches, instrumented models, influence, NCCR, metrics, saved state.

NIP is neuron-level inverse perturbation (Chen et al., arXiv 2112.13060), NCCR the neuron coverage
change rate (Shi).
"""
