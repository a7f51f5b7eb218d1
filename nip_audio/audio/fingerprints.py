"""Recognise copies of one recording by a fingerprint of its sound, without comparing all pairs.

A fingerprint is a code of 24 bits for each 20 ms: whether the difference between two neighbouring
bands grows within 40 ms (Haitsma and Kalker, "A highly robust audio fingerprinting system", ISMIR
2002). The bands lie between 300 and 3000 Hz, so that telephones, filters, offsets,
levels and codecs leave most codes as they are. Copies share codes at one distance in time.
"""

from __future__ import annotations

from collections.abc import Sequence
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

    Args:
        fingerprints: Codes of each of the n recordings.
        owners: (n,) number of each recording's owner.

    Returns:
        Pairs of places, the earlier first, in order: of each recording that with most in common.
    """
    sizes = [len(one) for one in fingerprints]
    if not sum(sizes):
        return []
    codes = np.concatenate([np.asarray(one, np.uint32) for one in fingerprints])
    files = np.repeat(np.arange(len(sizes)), sizes)
    times = np.concatenate([np.arange(size) for size in sizes])
    kept = codes != 0
    order = np.argsort(codes[kept], kind="stable")
    codes, files, times = (values[kept][order] for values in (codes, files, times))
    _, start, count = np.unique(codes, return_index=True, return_counts=True)
    common = np.repeat(count > _MOST_COMMON, count)
    codes, files, times = (values[~common] for values in (codes, files, times))
    found = []
    for lag in range(1, _MOST_COMMON):
        same = np.flatnonzero(codes[lag:] == codes[:-lag])
        if not len(same):
            break
        one, two = files[same], files[same + lag]
        other = owners[one] != owners[two]
        apart = times[same] - times[same + lag] + (1 << 15)
        found.append(((one << 40) | (two << 16) | apart)[other])
    if not found:
        return []
    keys, shared = np.unique(np.concatenate(found), return_counts=True)
    keys, shared = keys[shared >= _LEAST_SHARED], shared[shared >= _LEAST_SHARED]
    ones, twos = (keys >> 40).tolist(), ((keys >> 16) & 0xFFFFFF).tolist()
    best: dict[int, tuple[int, int]] = {}
    for one, two, votes in zip(ones, twos, shared.tolist(), strict=True):
        for here, there in ((one, two), (two, one)):
            if votes > best.get(here, (0, 0))[0]:
                best[here] = (votes, there)
    return sorted({(min(a, b), max(a, b)) for a, (_, b) in best.items()})
