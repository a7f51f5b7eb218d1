"""Benign items that defences are fitted to: random crops of recordings, or images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from nip_audio.audio.manifest import Recording
from nip_audio.core.adapter import Batch
from nip_audio.core.modality import Reader
from nip_audio.errors import FileError, InputError
from nip_audio.models.modalities import MODALITIES

__all__ = ["CROP_S", "Benign", "CleanItems", "read_benign"]

CROP_S = 2.0
"""Length of the crops of recordings by default, in seconds."""

_FEWEST = 8


class Benign(Protocol):
    """A source of benign items that a defence is fitted to."""

    @property
    def contents(self) -> tuple[str, ...]:
        """Content hash of each file."""
        ...

    @property
    def failures(self) -> tuple[FileError, ...]:
        """Errors of the files that could not be read."""
        ...

    def draw(self, generator: torch.Generator, *, items: int) -> Batch:
        """Draw raw items of one shape, each from a randomly drawn file."""
        ...


@dataclass(frozen=True)
class CleanItems:
    """Recordings or images in memory, from which random crops or whole items are drawn.

    Attributes:
        levels: Values of each file, (*S) integers, which take less memory than floats.
        full_scale: Integer that stands for 1.
        contents: Content hash of each file (``FileContent.content_sha256``).
        failures: Errors of the files that could not be read.
        crop: Number of positions of a crop along the last axis; None draws whole items.

    Raises:
        InputError: If ``crop`` is below 1.
    """

    levels: tuple[Tensor, ...]
    full_scale: int
    contents: tuple[str, ...]
    failures: tuple[FileError, ...] = ()
    crop: int | None = None

    def __post_init__(self) -> None:
        """Check the length of a crop."""
        if self.crop is not None and self.crop < 1:
            raise InputError(
                f"a crop has {self.crop} samples, expected at least 1; choose longer crops"
            )

    def draw(self, generator: torch.Generator, *, items: int) -> Batch:
        """Draw items, each from a randomly drawn file; a file shorter than a crop is repeated.

        Returns:
            (items, *S) values within the bounds of the modality.
        """
        rows = torch.randint(len(self.levels), (items,), generator=generator)
        drawn = [self._cropped(self.levels[row], generator) for row in rows.tolist()]
        return Batch(torch.stack(drawn).float() / self.full_scale)

    def _cropped(self, levels: Tensor, generator: torch.Generator) -> Tensor:
        if self.crop is None:
            return levels
        levels = levels.repeat(-(-self.crop // len(levels)))
        start = int(torch.randint(len(levels) - self.crop + 1, (1,), generator=generator))
        return levels[start : start + self.crop]


@dataclass(frozen=True)
class _Keeping:
    """How the files of one modality are kept in memory.

    Attributes:
        dtype: Type of the integers.
        full_scale: Integer that stands for 1.
        most: Sum of sizes at which reading stops: four hours of recordings take some 460 MB, 50,000
            images of 3 × 32 × 32 take 150 MB, and a purifier does not need more.
        size: Size of a file.
        crop: Length of a crop in positions, from the reader and the seconds asked for.
    """

    dtype: torch.dtype
    full_scale: int
    most: float
    size: Callable[[Any], float]
    crop: Callable[[Any, float | None], int | None]

    def levels(self, raw: Tensor) -> Tensor:
        """Return raw values as integers."""
        range_ = torch.iinfo(self.dtype)
        return (raw * self.full_scale).round().clamp(range_.min, range_.max).to(self.dtype)


def _crop_of_recordings(reader: Any, crop_s: float | None) -> int:
    seconds = CROP_S if crop_s is None else crop_s
    if not math.isfinite(seconds):
        raise InputError(f"the length of a crop is {seconds}, expected seconds, such as {CROP_S:g}")
    return round(seconds * int(reader.settings.sample_rate_hz))


def _no_crop(reader: Any, crop_s: float | None) -> None:  # noqa: ARG001
    if crop_s is not None:
        raise InputError(f"crops of {crop_s} seconds are for recordings; leave the length out")


_KEPT: Mapping[str, _Keeping] = {
    "audio": _Keeping(
        torch.int16, 2**15, 4 * 3600.0, lambda audio: audio.duration_s, _crop_of_recordings
    ),
    "image": _Keeping(torch.uint8, 255, 50_000, lambda image: 1, _no_crop),
}


def read_benign(
    files: Iterable[Recording],
    reader: Reader,
    *,
    crop_s: float | None = None,
    most: float | None = None,
) -> CleanItems:
    """Read clean files that a defence is fitted to: crops of recordings, or whole images.

    Unreadable files are listed as failures, and duplicates are skipped.

    Args:
        files: Clean files.
        reader: Reader of the files.
        crop_s: Length of the crops of recordings in seconds; None is ``CROP_S``.
        most: Total duration of recordings in seconds, or number of images, after which reading
            stops; None is four hours, or 50,000 images.

    Raises:
        InputError: If fewer than eight files are usable, or the length does not apply.
    """
    keeping = _KEPT[reader.tag]
    crop = keeping.crop(reader, crop_s)
    levels: dict[str, Tensor] = {}
    failures: list[FileError] = []
    total, most = 0.0, keeping.most if most is None else most
    for file in files:
        if total >= most:
            break
        try:
            item = reader.read(file)
        except FileError as err:
            failures.append(err)
            continue
        if item.content_sha256 not in levels:
            levels[item.content_sha256] = keeping.levels(item.raw)
            total += keeping.size(item)
    if len(levels) < _FEWEST:
        what = MODALITIES[reader.tag].plural
        raise InputError(
            f"{len(levels)} usable {what} ({len(failures)} failed), expected at least {_FEWEST}, "
            f"preferably hundreds; choose a folder with more clean {what}"
        )
    return CleanItems(
        tuple(levels.values()), keeping.full_scale, tuple(levels), tuple(failures), crop
    )
