"""Recognise copies of one recording by a fingerprint of its sound, without comparing all pairs.

A fingerprint is a code of 24 bits for each 20 ms: whether the difference between two neighbouring
bands grows within 40 ms (Haitsma and Kalker, "A highly robust audio fingerprinting system", ISMIR
2002). The bands lie between 300 and 3000 Hz, so that telephones, filters, offsets,
levels and codecs leave most codes as they are. Copies share codes at one distance in time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["alike", "fingerprint_of", "in_common_band"]

Codes = NDArray[np.uint32]

_LOW_HZ, _HIGH_HZ, _BITS = 300.0, 3000.0, 24
_RATE_HZ, _FRAME, _HOP = 6400, 1024, 128
_GROWS_IN = 2  # hops
_MOST_COMMON = 64  # a code that more frames share tells nothing
_PLACE_BITS = 40
_PLACE = (1 << _PLACE_BITS) - 1
_BLOCK = 1 << 12  # frames that are looked up at once
_LEAST_SHARED = 4  # of two different recordings three codes at most were shared
_SILENT_DB = -75.0


def fingerprint_of(samples: Tensor, sample_rate_hz: int) -> Codes:
    """Return the code of each frame of a recording, (frames,); 0 stands for a silent frame.

    Args:
        samples: (N,) waveform in [-1, 1].
        sample_rate_hz: Sample rate of the waveform.
    """
    x = samples.detach().cpu().float().numpy()
    x = soxr.resample(x, sample_rate_hz, _RATE_HZ, quality="LQ")
    if len(x) < _FRAME + _GROWS_IN * _HOP:
        return np.zeros(0, np.uint32)
    window = torch.hann_window(_FRAME)
    frames = torch.stft(
        torch.from_numpy(x), _FRAME, _HOP, window=window, center=False, return_complex=True
    )
    power = (frames.real.square() + frames.imag.square()) / _FRAME**2
    bands = (_bands() @ power + 1e-12).log()
    steps = bands[1:] - bands[:-1]
    grows = (steps[:, _GROWS_IN:] > steps[:, :-_GROWS_IN]).numpy()
    codes = (grows * (1 << np.arange(_BITS, dtype=np.uint32))[:, None]).sum(axis=0)
    level = 10 * np.log10(power.sum(dim=0).numpy() + 1e-12)[_GROWS_IN:]
    return np.where(level < _SILENT_DB, 0, codes).astype(np.uint32)


def in_common_band(samples: NDArray[np.float32], sample_rate_hz: int) -> NDArray[np.float64]:
    """Return what a telephone leaves of (N,) samples, 300 to 3000 Hz, to be correlated."""
    spectrum = np.fft.rfft(samples)
    hertz = np.fft.rfftfreq(len(samples), 1 / sample_rate_hz)
    spectrum[(hertz < _LOW_HZ) | (hertz > _HIGH_HZ)] = 0
    return np.asarray(np.fft.irfft(spectrum, len(samples)))


@lru_cache(maxsize=1)
def _bands() -> Tensor:
    """Return which frequencies of a frame belong to which band, (bands, frequencies)."""
    hertz = torch.fft.rfftfreq(_FRAME, 1 / _RATE_HZ)
    edges = torch.logspace(np.log10(_LOW_HZ), np.log10(_HIGH_HZ), _BITS + 2)
    inside: Tensor = (hertz[None] >= edges[:-1, None]) & (hertz[None] < edges[1:, None])
    return inside.float()


def alike(fingerprints: Sequence[Codes], owners: NDArray[np.integer]) -> list[tuple[int, int]]:
    """Return pairs of recordings of different owners that share codes at one distance in time.

    Memory grows with the number of codes, by at most 16 bytes for each, and time by how many frames
    share a code. A code that more than 64 frames share is not looked up, so a recording of which
    there are dozens of altered copies may not be found.

    Args:
        fingerprints: Codes of each of the n recordings.
        owners: (n,) number of each recording's owner.

    Returns:
        Pairs of places, the earlier first, in order: of each recording that with most in common.
    """
    index = _Index(fingerprints)
    pairs = set()
    for files in _blocks([len(one) for one in fingerprints]):
        for here, there in index.nearest(files, owners):
            pairs.add((min(here, there), max(here, there)))
    return sorted(pairs)


class _Index:
    """Finds the frames of many recordings that have a code.

    Args:
        fingerprints: Codes of each of the n recordings.
    """

    def __init__(self, fingerprints: Sequence[Codes]) -> None:
        """Sort the frames of all recordings by their codes."""
        self._fingerprints = fingerprints
        self._starts = np.cumsum([0, *map(len, fingerprints)])
        # a code and, in the lower bits, which frame of all has it
        self._frames = np.concatenate([np.zeros(0, np.uint64), *fingerprints])
        self._frames <<= _PLACE_BITS
        self._frames |= np.arange(self._starts[-1], dtype=np.uint64)
        self._frames.sort()

    def nearest(self, files: range, owners: NDArray[np.integer]) -> Iterator[tuple[int, int]]:
        """Yield each of some recordings with that of another owner that shares most with it."""
        codes = np.concatenate([self._fingerprints[file] for file in files]).astype(np.uint64)
        here = self._starts[files.start] + np.arange(len(codes))
        first = np.searchsorted(self._frames, codes << _PLACE_BITS)
        after = np.searchsorted(self._frames, (codes + 1) << _PLACE_BITS)
        count = np.where((codes == 0) | (after - first > _MOST_COMMON), 0, after - first)
        here = np.repeat(here, count)
        places = np.repeat(first - np.cumsum(count) + count, count) + np.arange(count.sum())
        there = (self._frames[places] & _PLACE).astype(np.int64)
        ones, twos = (
            np.searchsorted(self._starts, frames, side="right") - 1 for frames in (here, there)
        )
        apart = (here - self._starts[ones]) - (there - self._starts[twos]) & 0xFFFF
        other = owners[ones] != owners[twos]
        ones -= files.start
        keys, shared = np.unique((ones << 40 | twos << 16 | apart)[other], return_counts=True)
        enough = shared >= _LEAST_SHARED
        keys, shared = keys[enough], shared[enough]
        keys = keys[np.lexsort((keys, -shared, keys >> 40))]  # most in common first
        ones, best = np.unique(keys >> 40, return_index=True)
        twos = keys[best] >> 16 & 0xFFFFFF
        yield from zip((ones + files.start).tolist(), twos.tolist(), strict=True)


def _blocks(sizes: Sequence[int]) -> Iterator[range]:
    """Divide recordings into ranges of at most so many frames, or of one recording."""
    start, frames = 0, 0
    for file, size in enumerate(sizes):
        if file > start and frames + size > _BLOCK:
            yield range(start, file)
            start, frames = file, 0
        frames += size
    if start < len(sizes):
        yield range(start, len(sizes))
