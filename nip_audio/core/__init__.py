"""The methods without a modality: models that can be tapped, influence, change rates, metrics.

A model is an ``InstrumentedModel``, an input a ``Batch``. Neuron-level Inverse Perturbation (NIP)
builds on ``neuron_influence`` and ``select_neurons``, the Neuron Coverage Change Rate (NCCR) on
``measure_nccr``. Nothing in here knows what a sound or an image is.
"""

from nip_audio._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
