"""Benign items that defences are fitted to: random crops of recordings, or images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.manifest import Recording
from nip_audio.core.adapter import Batch
from nip_audio.core.modality import Reader
from nip_audio.errors import AudioError, FileError, ImageError, InputError
from nip_audio.image.adapter import ImageAdapter

__all__ = [
    "CROP_S",
    "Benign",
    "CleanClips",
    "CleanImages",
    "Crops",
    "read_benign",
    "read_clips",
    "read_images",
]

CROP_S = 2.0
"""Length of the crops of recordings by default, in seconds."""


_FEWEST = 8
_FULL_SCALE = 2**15
_LEVELS = 255


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
class CleanClips:
    """Recordings in memory, from which random crops are drawn.

    Attributes:
        samples: Samples of each recording, (N,) int16, which takes half the memory of floats.
        contents: Content hash of each recording (``Audio.content_sha256``).
        failures: Errors of the recordings that could not be read.
    """

    samples: tuple[Tensor, ...]
    contents: tuple[str, ...]
    failures: tuple[AudioError, ...] = ()

    def cropped(self, crop_samples: int) -> Crops:
        """Return a source of crops of one length.

        Raises:
            InputError: If ``crop_samples`` is below 1.
        """
        return Crops(self, crop_samples)

    def draw(self, generator: torch.Generator, *, items: int, crop_samples: int) -> Batch:
        """Draw crops, each from a randomly drawn recording; a short recording is repeated.

        Returns:
            (items, crop_samples) samples in [-1, 1].
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
    """Random crops of one length, drawn from recordings in memory.

    Attributes:
        clips: Recordings that crops are drawn from.
        crop_samples: Number of samples of a crop.

    Raises:
        InputError: If ``crop_samples`` is below 1.
    """

    clips: CleanClips
    crop_samples: int

    def __post_init__(self) -> None:
        """Validate the settings."""
        if self.crop_samples < 1:
            raise InputError(
                f"a crop has {self.crop_samples} samples, expected at least 1; choose longer crops"
            )

    @property
    def contents(self) -> tuple[str, ...]:
        """Content hashes of the recordings."""
        return self.clips.contents

    @property
    def failures(self) -> tuple[FileError, ...]:
        """Errors of the recordings that could not be read."""
        return self.clips.failures

    def draw(self, generator: torch.Generator, *, items: int) -> Batch:
        """Draw crops of the chosen length, as ``CleanClips.draw`` does."""
        return self.clips.draw(generator, items=items, crop_samples=self.crop_samples)


@dataclass(frozen=True)
class CleanImages:
    """Images in memory.

    Attributes:
        levels: (n, C, H, W) uint8 pixel values, which take a quarter of the memory of floats.
        contents: Content hash of each image (``Image.content_sha256``).
        failures: Errors of the images that could not be read.
    """

    levels: Tensor
    contents: tuple[str, ...]
    failures: tuple[ImageError, ...] = ()

    def draw(self, generator: torch.Generator, *, items: int) -> Batch:
        """Draw images with replacement.

        Returns:
            (items, C, H, W) pixel values in [0, 1].
        """
        rows = torch.randint(len(self.levels), (items,), generator=generator)
        return Batch(self.levels[rows].float() / _LEVELS)


def read_clips(
    recordings: Iterable[Recording], adapter: WaveformAdapter, *, most_s: float = 4 * 3600.0
) -> CleanClips:
    """Read recordings; unreadable ones are listed as failures, and duplicates are skipped.

    Args:
        recordings: Clean recordings.
        adapter: Adapter that reads the files.
        most_s: Total duration in seconds after which reading stops: a purifier does not need more,
            and four hours take some 460 MB.

    Raises:
        InputError: If fewer than eight recordings are usable.
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


def read_images(
    files: Iterable[Recording], adapter: ImageAdapter, *, most: int = 50_000
) -> CleanImages:
    """Read images; unreadable ones are listed as failures, and duplicates are skipped.

    Args:
        files: Clean images.
        adapter: Adapter that reads the files.
        most: Number of images after which reading stops: 50,000 of 3 × 32 × 32 take 150 MB.

    Raises:
        InputError: If fewer than eight images are usable.
    """
    levels: dict[str, Tensor] = {}
    failures = []
    for file in files:
        if len(levels) >= most:
            break
        try:
            image = adapter.read(file)
        except ImageError as err:
            failures.append(err)
            continue
        pixels = (image.pixels * _LEVELS).round().to(torch.uint8)
        levels.setdefault(image.content_sha256, pixels)
    _require_enough(len(levels), len(failures), "images")
    return CleanImages(torch.stack(list(levels.values())), tuple(levels), tuple(failures))


def _read_crops(
    files: Iterable[Recording], reader: WaveformAdapter, crop_s: float | None
) -> Benign:
    seconds = CROP_S if crop_s is None else crop_s
    if not math.isfinite(seconds):
        raise InputError(f"the length of a crop is {seconds}, expected seconds, such as {CROP_S:g}")
    crop_samples = round(seconds * reader.settings.sample_rate_hz)
    return read_clips(files, reader).cropped(crop_samples)


def _read_whole(files: Iterable[Recording], reader: ImageAdapter, crop_s: float | None) -> Benign:
    if crop_s is not None:
        raise InputError(f"crops of {crop_s} seconds are for recordings; leave the length out")
    return read_images(files, reader)


_READ: Mapping[str, Callable[..., Benign]] = {"audio": _read_crops, "image": _read_whole}


def read_benign(
    files: Iterable[Recording], reader: Reader, *, crop_s: float | None = None
) -> Benign:
    """Read clean files that a defence is fitted to: crops of recordings, or whole images.

    Args:
        files: Clean files.
        reader: Reader of the files.
        crop_s: Length of the crops of recordings in seconds; None is ``CROP_S``.

    Raises:
        InputError: If fewer than eight files are usable, or the length does not apply.
    """
    return _READ[reader.tag](files, reader, crop_s)


def _require_enough(usable: int, failed: int, what: str) -> None:
    if usable < _FEWEST:
        raise InputError(
            f"{usable} usable {what} ({failed} failed), expected at least {_FEWEST}, preferably "
            f"hundreds; choose a folder with more clean {what}"
        )
