"""How files of one kind are read, and what a screening has to know of a kind.

``WaveformAdapter`` and ``ImageAdapter`` are readers; the kinds are in ``kinds``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

from torch import Tensor

from nip_audio.audio.manifest import Recording
from nip_audio.core.nccr import NccrConfig
from nip_audio.errors import FileError
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.measured import (
    FileFacts,
    Measurement,
    PictureFacts,
    PictureMeasurement,
)
from nip_audio.screening.words import Words

__all__ = ["Item", "Kind", "Reader", "read_once"]


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


class Kind(Reader, Protocol):
    """A kind of files: how they are read, and what there is to know of one."""

    @property
    def words(self) -> Words:
        """What they are called."""
        ...

    @property
    def likenesses(self) -> bool:
        """Whether copies that are not exact are known by how ``raw`` correlates."""
        ...

    def facts(self, item: Any) -> FileFacts | PictureFacts:
        """Return what is known of a file without the model."""
        ...

    def measure(
        self, pretrained: PretrainedModel, item: Any, config: NccrConfig, *, names: bool, seed: int
    ) -> Measurement | PictureMeasurement:
        """Measure what the detector judges; equal content and seed give equal results."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return how files are read, as plain JSON values; ``adapter_of_json`` reads them."""
        ...


ItemT = TypeVar("ItemT", bound=Item)


def read_once(
    files: Iterable[Recording],
    read: Callable[[Recording], ItemT],
    refuse_copy: Callable[[Recording], FileError],
    failures: list[FileError],
    progress: Callable[[Recording], None],
) -> Iterator[tuple[Recording, ItemT]]:
    """Read files for a calibration, each content once.

    Args:
        files: To read.
        read: One of them.
        refuse_copy: Says that a file's content was there before.
        failures: Gets what could not be read, and the copies.
        progress: Called for every file, once what was read of it has been dealt with.

    Yields:
        Each usable file, and what was read.
    """
    contents: set[str] = set()
    for file in files:
        try:
            item = read(file)
            content = item.content_sha256
            if content in contents:
                raise refuse_copy(file)
        except FileError as err:
            failures.append(err)
        else:
            contents.add(content)
            yield file, item
        progress(file)
