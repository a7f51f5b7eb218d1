"""Find the modality of a model, by the field of its card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nip_audio.audio import MODALITY as AUDIO
from nip_audio.core.modality import Modality, Reader
from nip_audio.image import MODALITY as IMAGE
from nip_audio.models.cards import ModelCard

__all__ = ["MODALITIES", "modality_of", "reader_of_json"]

MODALITIES: Mapping[str, Modality] = {one.name: one for one in (AUDIO, IMAGE)}
"""All modalities, by the name that a card gives."""


def modality_of(card: ModelCard) -> Modality:
    """Return the modality of a model."""
    return MODALITIES[card.modality]


def reader_of_json(settings: Mapping[str, Any]) -> Reader:
    """Make a reader from the values that ``Reader.to_json`` returned.

    Raises:
        TypeError: If they are of no modality.
    """
    tried = []
    for modality in MODALITIES.values():
        try:
            return modality.reader_of_json(settings)
        except TypeError as err:
            tried.append(str(err))
    raise TypeError("; ".join(tried))
