"""Define what a screening needs to know about a modality, and read the files of a calibration.

``WaveformAdapter`` and ``ImageAdapter`` are readers; module ``kinds`` holds the two modalities.
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
    ImageFacts,
    ImageMeasurement,
    Measurement,
)
from nip_audio.screening.words import Words

__all__ = ["FileContent", "Kind", "Reader", "read_once"]


class FileContent(Protocol):
    """Content of one file."""

    @property
    def raw(self) -> Tensor:
        """Raw input of a model, without a batch axis."""
        ...

    @property
    def noise_key(self) -> str:
        """Text from which, together with the seed, the noise of a measurement is drawn."""
        ...

    @property
    def content_sha256(self) -> str:
        """SHA-256 of ``raw``; it does not depend on the file's name or encoding."""
        ...


class Reader(Protocol):
    """Reads files of one modality."""

    @property
    def suffixes(self) -> frozenset[str]:
        """File name endings of the files that it reads."""
        ...

    def read(self, file: Recording) -> FileContent:
        """Read one file.

        Raises:
            FileError: If it cannot be used.
        """
        ...


class Kind(Reader, Protocol):
    """A modality as a screening sees it: reads, measures and describes its files."""

    @property
    def words(self) -> Words:
        """Words for files of this modality."""
        ...

    @property
    def finds_altered_copies(self) -> bool:
        """Whether altered copies can be found by the correlation of ``raw``."""
        ...

    def facts(self, item: Any) -> FileFacts | ImageFacts:
        """Return what is known about a file without the model."""
        ...

    def measure(
        self, pretrained: PretrainedModel, item: Any, config: NccrConfig, *, names: bool, seed: int
    ) -> Measurement | ImageMeasurement:
        """Measure what the detector judges; equal content and seed give equal results."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return the settings of the reader as plain JSON values, for ``adapter_of_json``."""
        ...


ContentT = TypeVar("ContentT", bound=FileContent)


def read_once(
    files: Iterable[Recording],
    read: Callable[[Recording], ContentT],
    refuse_copy: Callable[[Recording], FileError],
    failures: list[FileError],
    progress: Callable[[Recording], None],
) -> Iterator[tuple[Recording, ContentT]]:
    """Read files for a calibration, and leave out those whose content was read before.

    Args:
        files: Files to read.
        read: Reads one file.
        refuse_copy: Makes the error for a file whose content was read before.
        failures: List to which the errors of unreadable files and copies are appended.
        progress: Called for every file, after the caller has processed its content.

    Yields:
        Each usable file and its content.
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
