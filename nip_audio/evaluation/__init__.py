"""Evaluate defences and detectors honestly: systems, attacks, roles, sanity checks, tables.

``Runner`` runs a configuration that ``read_config`` read; ``measure_robustness`` ranks models by
their change rates.
"""

from nip_audio._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
