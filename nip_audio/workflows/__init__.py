"""What a command does with files: attack, purify, fit.

Each function takes files and settings, and returns what was done, as its JSON sidecar has it.
"""

from nip_audio._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
