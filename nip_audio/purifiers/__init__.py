"""Purifiers and other defences, among them NIP.

``make_purifier`` makes one by name, ``PURIFIERS`` lists them. ``GuidedNip`` is the one that works,
``NipPool`` the published Neuron-level Inverse Perturbation. ``defend`` joins a model and its
defence into the model that an adaptive attacker attacks.
"""

from nip_audio._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
