"""Detectors of NCCR (neuron coverage change rate) vectors and embeddings, in scikit-learn style."""
