"""The report of a screening: a page to look at and listen to, and tables."""

from nip_audio._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
