"""Find one recording filed under two speakers, even if its level, length or coding was changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nip_audio.audio.fingerprints import alike
from nip_audio.errors import InputError

__all__ = ["Duplicate", "correlation_peak", "find_duplicates", "nearest_elsewhere"]

Array = NDArray[np.floating]

_BLOCK = 2048
_LIKE = 0.85
_CORRELATED = 0.5
_LEAST_OVERLAP = 0.5


@dataclass(frozen=True)
class Duplicate:
    """Two files that hold the same recording.

    Attributes:
        first: Row of the earlier file.
        second: Row of the later file.
        correlation: Normalised correlation of the samples at the best shift, in [0, 1]; 1 for
            exact copies.
    """

    first: int
    second: int
    correlation: float


def find_duplicates(
    hashes: Sequence[bytes],
    fingerprints: Sequence[NDArray[np.uint32]],
    embeddings: Array,
    speakers: Sequence[str | None],
    read: Callable[[int], Array | None] | None,
) -> list[Duplicate]:
    """Find recordings that are filed under more than one speaker.

    Files with equal samples are found by their hash. Of every other file, the file of another
    speaker whose fingerprint shares most codes with it is read, and the one whose embedding is most
    similar, if it is similar enough; the samples of the two are correlated. Different recordings of
    one voice do not correlate; copies of one recording do,
    whatever was done to their level, ends or coding. Copies at another speed or pitch, and
    recordings of a loudspeaker, are not found.

    Args:
        hashes: Hash of the samples of each of the n files.
        fingerprints: Codes of each file, as ``audio.fingerprints.fingerprint_of`` returns them.
        embeddings: (n, D) embeddings of unit length.
        speakers: Speaker of each file; files without a speaker count as different speakers.
        read: Returns the samples of a row, (N,), or None if the file can no longer be read. It is
            called for few rows. If it is None, only files with equal samples are found.

    Returns:
        Pairs of files of different speakers, sorted by row.
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
    near = nearest_elsewhere(embeddings, codes, least=_LIKE)
    likely = {(min(pair), max(pair)) for pair in (*alike(fingerprints, codes), *near)}
    for pair in sorted(likely):
        row, other = pair
        if {row, other} <= exact:
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
    """Pair each row with the most similar row of another speaker, where one is similar enough.

    Args:
        embeddings: (n, D) embeddings of unit length.
        codes: (n,) number of each row's speaker.
        least: Smallest cosine similarity of a pair.
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
            nearer = nearest > highest  # among equals the first wins, as in numpy's argmax
            best[nearer] = left + cosines[nearer].argmax(axis=1)
            highest[nearer] = nearest[nearer]
        pairs += [(start + int(r), int(best[r])) for r in np.flatnonzero(highest >= least)]
    return pairs


def correlation_peak(one: Array, two: Array) -> float:
    """Return the highest normalised cross-correlation of two recordings over all shifts.

    Both are normalised where they overlap. Shifts at which less than half of the shorter recording
    overlaps are ignored.

    Args:
        one: (N,) samples.
        two: (M,) samples at the same sample rate.

    Returns:
        Absolute correlation in [0, 1]: an inverted copy is a copy as well.

    Raises:
        InputError: If a recording is empty.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> voice = rng.standard_normal(4000)
        >>> round(correlation_peak(voice, -0.1 * voice[500:]), 3)
        1.0
        >>> correlation_peak(voice, rng.standard_normal(4000)) < 0.2
        True
    """
    if not len(one) or not len(two):
        raise InputError(
            f"got recordings of {len(one)} and {len(two)} samples, expected neither to be empty; "
            "leave the empty one out"
        )
    product = _cross_correlation(one, two)
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


def _cross_correlation(one: Array, two: Array) -> Array:
    """Correlate at all shifts of ``two`` against ``one``, from −(M − 1) to N − 1: (N + M − 1,).

    The same as ``scipy.signal.correlate``, which takes a second to import.
    """
    size = 1 << (len(one) + len(two) - 2).bit_length()  # nothing wraps around
    product = np.fft.irfft(np.fft.rfft(one, size) * np.conj(np.fft.rfft(two, size)), size)
    return np.concatenate([product[size - len(two) + 1 :], product[: len(one)]])


def _owner(speaker: str | None, row: int) -> str:
    return f"file {row}" if speaker is None else f"speaker {speaker}"
