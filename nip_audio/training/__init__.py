"""Train models on corpora, and publish them with a model card; the recipes use this package."""

from nip_audio._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
