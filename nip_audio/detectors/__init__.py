"""Detectors: distances from clean vectors, classifiers of attacks, thresholds, backdoors.

They judge vectors, whatever these were measured on. ``CleanDistance`` needs clean examples only;
``conformal_threshold`` turns its distances into a threshold with a stated false-positive rate.
"""

from nip_audio._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
