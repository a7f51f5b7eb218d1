"""Find how a screening treats files, by their reader or by the modality's name."""

from __future__ import annotations

from collections.abc import Mapping

from nip_audio.core.modality import Reader
from nip_audio.screening.images import Images
from nip_audio.screening.kind import Kind
from nip_audio.screening.recordings import Recordings

__all__ = ["KINDS", "kind_of"]

KINDS: Mapping[str, type[Kind]] = {kind.modality.name: kind for kind in (Recordings, Images)}
"""How each modality is screened, by its name."""


def kind_of(reader: Reader) -> Kind:
    """Return how a screening treats the files that a reader reads."""
    return KINDS[reader.tag](reader)
