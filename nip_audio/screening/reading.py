"""How files of one kind are read: all that fitting, measuring and judging have to know of a kind.

``WaveformAdapter`` and ``ImageAdapter`` are readers.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from nip_audio.audio.manifest import Recording

__all__ = ["Item", "Reader"]


class Item(Protocol):
    """What was read of a file."""

    @property
    def raw(self) -> Tensor:
        """Raw input of a model, without a batch axis."""
        ...

    @property
    def noise_key(self) -> str:
        """What, with the seed, a measurement's noise is drawn from."""
        ...

    @property
    def content_sha256(self) -> str:
        """Hash of ``raw``: equal content has the same, whatever the file's name."""
        ...


class Reader(Protocol):
    """Reads files of one kind."""

    @property
    def suffixes(self) -> frozenset[str]:
        """Endings of the files in a folder that are of this kind."""
        ...

    def read(self, file: Recording) -> Item:
        """Read one file.

        Raises:
            FileError: If it cannot be used.
        """
        ...
