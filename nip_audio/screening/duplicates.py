"""The same recording under two speakers: copied, or changed in level, length or coding."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import correlate

from nip_audio.errors import InputError

__all__ = ["Duplicate", "correlation_peak", "find_duplicates", "nearest_elsewhere"]

Array = NDArray[np.floating]

_BLOCK = 2048
_LIKE = 0.85
_CORRELATED = 0.5
_LEAST_OVERLAP = 0.5


@dataclass(frozen=True)
class Duplicate:
    """Two files that hold one recording.

    Attributes:
        first: Row of one of them.
        second: Row of the other, the later one.
        correlation: Of their samples where they overlap best; 1 for exact copies.
    """

    first: int
    second: int
    correlation: float


def find_duplicates(
    hashes: Sequence[bytes],
    embeddings: Array,
    speakers: Sequence[str | None],
    read: Callable[[int], Array | None] | None,
) -> list[Duplicate]:
    """Find recordings that lie under more than one speaker.

    Equal samples are found by their hash. Of each other file the nearest of another speaker is
    listened to, if it sounds alike, and their samples are correlated: different recordings of one
    voice do not correlate, the same recording does, whatever was done to its level, its ends or its
    coding. Not found: other speed or pitch, and one that was played and recorded again.

    Args:
        hashes: Of each file's samples.
        embeddings: (n, D) of unit length.
        speakers: Of each file; files of nobody are taken for different ones.
        read: Returns a row's samples, (N,), for the few that are listened to; None if the file can
            no longer be read. Without it only equal samples are found.

    Returns:
        Pairs of different speakers, in order.
    """
    owner = np.array([_owner(speaker, row) for row, speaker in enumerate(speakers)], dtype=object)
    codes = np.unique(owner.astype(str), return_inverse=True)[1]
    found: dict[tuple[int, int], float] = {}
    rows_of: dict[bytes, list[int]] = defaultdict(list)
    for row, digest in enumerate(hashes):
        rows_of[digest].append(row)
    for rows in rows_of.values():
        for row in rows:
            other = next((r for r in rows if codes[r] != codes[row]), None)
            if other is not None:
                found[min(row, other), max(row, other)] = 1.0
    exact = {row for pair in found for row in pair}
    if read is None:
        return [Duplicate(*pair, correlation) for pair, correlation in sorted(found.items())]
    for row, other in nearest_elsewhere(embeddings, codes, least=_LIKE):
        pair = (min(row, other), max(row, other))
        if pair in found or {row, other} <= exact:
            continue
        one, two = read(row), read(other)
        if one is None or two is None:
            continue
        peak = correlation_peak(one, two)
        if peak >= _CORRELATED:
            found[pair] = peak
    return [Duplicate(*pair, correlation) for pair, correlation in sorted(found.items())]


def nearest_elsewhere(
    embeddings: Array, codes: NDArray[np.integer], *, least: float
) -> list[tuple[int, int]]:
    """Return each row with the most similar row of another speaker, if it is similar at all.

    Args:
        embeddings: (n, D) of unit length.
        codes: (n,) speaker of each row.
        least: Cosine from which rows are similar.
    """
    pairs = []
    for start in range(0, len(embeddings), _BLOCK):
        rows = slice(start, start + _BLOCK)
        here = embeddings[rows].astype(np.float32)
        best, highest = np.zeros(len(here), int), np.full(len(here), -np.inf, np.float32)
        for left in range(0, len(embeddings), _BLOCK):
            columns = slice(left, left + _BLOCK)
            cosines = here @ embeddings[columns].astype(np.float32).T
            cosines[codes[rows, None] == codes[None, columns]] = -np.inf
            nearest = cosines.max(axis=1)
            nearer = nearest > highest  # of equals the first, as everywhere
            best[nearer] = left + cosines[nearer].argmax(axis=1)
            highest[nearer] = nearest[nearer]
        pairs += [(start + int(r), int(best[r])) for r in np.flatnonzero(highest >= least)]
    return pairs


def correlation_peak(one: Array, two: Array) -> float:
    """Return the highest normalised cross-correlation of two recordings over all shifts.

    Both are normalised where they overlap; shifts at which less than half of the shorter one
    overlaps do not count.

    Args:
        one: (N,) samples.
        two: (M,) samples at the same rate.

    Returns:
        In [0, 1]; the sign is ignored, an inverted copy is a copy.

    Raises:
        InputError: If one is empty.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> voice = rng.standard_normal(4000)
        >>> round(correlation_peak(voice, -0.1 * voice[500:]), 3)
        1.0
        >>> correlation_peak(voice, rng.standard_normal(4000)) < 0.2
        True
    """
    if not len(one) or not len(two):
        raise InputError("a recording is empty, expected samples")
    product = correlate(one, two, mode="full", method="fft")
    energies = [
        np.concatenate([[0.0], np.cumsum(np.square(x, dtype=np.float64))]) for x in (one, two)
    ]
    shifts = np.arange(-(len(two) - 1), len(one))
    starts, stops = np.maximum(shifts, 0), np.minimum(shifts + len(two), len(one))
    overlap = stops - starts
    first = energies[0][stops] - energies[0][starts]
    second = energies[1][stops - shifts] - energies[1][starts - shifts]
    enough = (overlap >= _LEAST_OVERLAP * min(len(one), len(two))) & (first > 0) & (second > 0)
    if not enough.any():
        return 0.0
    return float(np.abs(product[enough] / np.sqrt(first[enough] * second[enough])).max().clip(0, 1))


def _owner(speaker: str | None, row: int) -> str:
    return f"file {row}" if speaker is None else f"speaker {speaker}"
