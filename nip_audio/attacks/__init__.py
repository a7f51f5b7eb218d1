"""Attacks on waveforms, spectrograms and images, behind one contract.

``make_attack`` makes one by name, ``ATTACKS`` lists them. An attack is called with an objective
(``Identification``, ``Verification``, …), a batch and a random generator, and keeps within its
bounds.
"""

from nip_audio._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
