"""Train models on corpora, and publish them with a card; recipes are its clients."""

from nip_audio._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
