"""Evaluate defences and detectors of speaker models under attack.

``Runner`` runs a configuration that ``read_config`` has read. ``measure_robustness`` ranks models
by their neuron coverage change rate (NCCR).
"""

from nip_audio._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
