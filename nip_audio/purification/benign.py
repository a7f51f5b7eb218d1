"""Benign items that defences are fitted to: random crops of recordings, or pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.manifest import Recording
from nip_audio.core.adapter import Batch
from nip_audio.errors import AudioError, FileError, ImageError, InputError
from nip_audio.image.adapter import ImageAdapter

__all__ = ["Benign", "CleanClips", "CleanPictures", "Crops", "read_clips", "read_pictures"]

_FEWEST = 8
_FULL_SCALE = 2**15
_LEVELS = 255


class Benign(Protocol):
    """What a defence is fitted to."""

    @property
    def contents(self) -> tuple[str, ...]:
        """Content hash of each file."""
        ...

    @property
    def failures(self) -> tuple[FileError, ...]:
        """What could not be read."""
        ...

    def draw(self, generator: torch.Generator, *, items: int) -> Batch:
        """Draw raw items, all of one shape, each of a file drawn anew."""
        ...


@dataclass(frozen=True)
class CleanClips:
    """Recordings in memory, and random crops of them.

    Attributes:
        samples: (N,) int16 each, to hold twice as many.
        contents: ``Audio.content_sha256`` of each.
        failures: What could not be read.
    """

    samples: tuple[Tensor, ...]
    contents: tuple[str, ...]
    failures: tuple[AudioError, ...] = ()

    def cropped(self, crop_samples: int) -> Crops:
        """Return what crops of one length are drawn from.

        Raises:
            InputError: If a crop would hold no sample.
        """
        return Crops(self, crop_samples)

    def draw(self, generator: torch.Generator, *, items: int, crop_samples: int) -> Batch:
        """Draw crops, each of a recording drawn anew; a short recording is repeated.

        Returns:
            (items, crop_samples) in [-1, 1].
        """
        rows = torch.randint(len(self.samples), (items,), generator=generator)
        crops = []
        for row in rows.tolist():
            clip = self.samples[row]
            clip = clip.repeat(-(-crop_samples // len(clip)))
            start = int(torch.randint(len(clip) - crop_samples + 1, (1,), generator=generator))
            crops.append(clip[start : start + crop_samples])
        return Batch(torch.stack(crops).float() / _FULL_SCALE)


@dataclass(frozen=True)
class Crops:
    """Crops of one length of recordings in memory.

    Attributes:
        clips: The recordings.
        crop_samples: Of a crop.

    Raises:
        InputError: If a crop would hold no sample.
    """

    clips: CleanClips
    crop_samples: int

    def __post_init__(self) -> None:
        """Check."""
        if self.crop_samples < 1:
            raise InputError(
                f"a crop has {self.crop_samples} samples, expected at least 1; lengthen it"
            )

    @property
    def contents(self) -> tuple[str, ...]:
        """Content hashes of the recordings."""
        return self.clips.contents

    @property
    def failures(self) -> tuple[FileError, ...]:
        """What could not be read."""
        return self.clips.failures

    def draw(self, generator: torch.Generator, *, items: int) -> Batch:
        """Draw crops; see ``CleanClips.draw``."""
        return self.clips.draw(generator, items=items, crop_samples=self.crop_samples)


@dataclass(frozen=True)
class CleanPictures:
    """Pictures in memory.

    Attributes:
        levels: (n, C, H, W) uint8, to hold four times as many.
        contents: ``Image.content_sha256`` of each.
        failures: What could not be read.
    """

    levels: Tensor
    contents: tuple[str, ...]
    failures: tuple[ImageError, ...] = ()

    def draw(self, generator: torch.Generator, *, items: int) -> Batch:
        """Draw pictures, with replacement.

        Returns:
            (items, C, H, W) in [0, 1].
        """
        rows = torch.randint(len(self.levels), (items,), generator=generator)
        return Batch(self.levels[rows].float() / _LEVELS)


def read_clips(
    recordings: Iterable[Recording], adapter: WaveformAdapter, *, most_s: float = 4 * 3600.0
) -> CleanClips:
    """Read recordings; bad ones and copies are left out and listed.

    Args:
        recordings: Clean audio.
        adapter: How files are read.
        most_s: Seconds after which the rest is left unread: a purifier does not need more, and four
            hours take some 460 MB.

    Raises:
        InputError: If fewer than eight can be used.
    """
    samples: dict[str, Tensor] = {}
    failures = []
    total = 0.0
    for recording in recordings:
        if total >= most_s:
            break
        try:
            audio = recording.read(adapter.settings)
        except AudioError as err:
            failures.append(err)
            continue
        content = audio.content_sha256
        if content in samples:
            continue
        full_scale = (audio.samples * _FULL_SCALE).round().clamp(-_FULL_SCALE, _FULL_SCALE - 1)
        samples[content] = full_scale.to(torch.int16)
        total += audio.duration_s
    _require_enough(len(samples), len(failures), "recordings")
    return CleanClips(tuple(samples.values()), tuple(samples), tuple(failures))


def read_pictures(
    files: Iterable[Recording], adapter: ImageAdapter, *, most: int = 50_000
) -> CleanPictures:
    """Read pictures; bad ones and copies are left out and listed.

    Args:
        files: Clean pictures.
        adapter: How files are read.
        most: Pictures after which the rest is left unread: 50,000 of 3 × 32 × 32 take 150 MB.

    Raises:
        InputError: If fewer than eight can be used.
    """
    levels: dict[str, Tensor] = {}
    failures = []
    for file in files:
        if len(levels) >= most:
            break
        try:
            picture = adapter.read(file)
        except ImageError as err:
            failures.append(err)
            continue
        pixels = (picture.pixels * _LEVELS).round().to(torch.uint8)
        levels.setdefault(picture.content_sha256, pixels)
    _require_enough(len(levels), len(failures), "pictures")
    return CleanPictures(torch.stack(list(levels.values())), tuple(levels), tuple(failures))


def _require_enough(usable: int, failed: int, what: str) -> None:
    if usable < _FEWEST:
        raise InputError(
            f"{usable} usable {what} ({failed} failed), expected at least {_FEWEST}, and better "
            "hundreds; give a folder with more that are clean"
        )
