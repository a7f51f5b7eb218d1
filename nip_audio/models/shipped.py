"""Hashes of the cards of the models that come with the package, and so of all their files."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["SHIPPED_CARDS"]

SHIPPED_CARDS: Mapping[str, str] = {
    "audionet-libri251": "aa39bd489625c38fbf8a12543c3a387c7f01c2bbd6b778e44a22f102b3d3a60e",
    "deep-speaker-libri30": "ed45685b93df75c8f164185f2d4f94eb279997e3d0c7d755c37d013a1545a6f1",
    "lenet5-mnist": "3ad328d0d4b2996d5c20a23ed4556383600374223b77ff7d9978a123ebc79664",
    "resnet20-gtsrb": "056b2727ffe34d7d25b05de8eab3f69712170f90db8ad005fb98e38b89a1d545",
    "resnet34-libri30": "2cb04da25482df98e5b5f1bfd3d38a74197b7ca900899c8475830f7aa6947873",
    "vgg-cifar10": "aeee876318e3c449a884ef28168921248ff145cdf03546b6c01028bb7ba24b97",
    "xvector-libri251": "57df9a4286e22a350390ccfa5ca18a1506a4b46fcda5756255476ac960c6f460",
}
"""``card_sha256`` of each, by its name. ``recipes/publish.py`` writes it, a test compares."""
