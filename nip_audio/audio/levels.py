"""Bring decoded samples to full scale, without an offset, and find where they were cut off.

Recorders and converters leave a constant offset, samples beyond full scale, or whole numbers stored
as floats. What is changed is said in words, because a system that reads the file otherwise hears
something else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEAST_OFFSET", "ClippingMeter", "to_full_scale"]

Array = NDArray[np.float32]

LEAST_OFFSET = 0.005
"""Smallest offset that is removed, as a share of full scale."""

_FULL = 0.9999
_FLAT = 2.0**-14  # of half the range: two levels of 16 bits, where the range is full scale
_FLAT_S, _FLAT_SAMPLES = 1e-4, 3  # the top of a low tone is as flat for a shorter time
_LEAST_RANGE = 0.005
_BEYOND_SHARE = 0.001
_MOST_GAIN = 16.0
_UNITS = ((16, 2.0**15), (24, 2.0**23), (32, 2.0**31))


class ClippingMeter:
    """Counts samples that were cut off, channel by channel and block by block.

    A sample is cut off at full scale, or where three or more in a row, for 0.1 ms at least, lie at
    the highest (or the lowest) value of the channel, whatever it is: a recorder clips before its
    level is changed.

    Args:
        channels: Number of channels.
        rate_hz: Sample rate.
    """

    def __init__(self, channels: int, rate_hz: int) -> None:
        """Start without samples."""
        self._row = max(_FLAT_SAMPLES, math.ceil(_FLAT_S * rate_hz))
        self._samples = 0
        self._full = np.zeros(channels, np.int64)
        self._edges = np.full((2, channels), -np.inf)  # highest value, and minus the lowest
        self._flat = np.zeros((2, channels), np.int64)

    def add(self, block: Array) -> None:
        """Add a block (samples, channels)."""
        if not len(block):
            return
        self._samples += len(block)
        self._full += (np.abs(block) >= _FULL).sum(axis=0)
        edges = np.stack([block.max(axis=0), -block.min(axis=0)])
        with np.errstate(invalid="ignore"):  # samples that are not finite are refused elsewhere
            higher = np.maximum(self._edges, edges)
            slack = _FLAT * higher.sum(axis=0) / 2
            self._flat[higher - self._edges > slack] = 0
            for side, values in enumerate((block, -block)):
                if (edges[side] >= higher[side] - slack).any():
                    self._flat[side] += _in_rows(values >= higher[side] - slack, self._row)
        self._edges = higher

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of the samples of each channel that were cut off, in [0, 1]."""
        if not self._samples:
            return (0.0,) * len(self._full)
        flat = np.where(self._edges.sum(axis=0) / 2 >= _LEAST_RANGE, self._flat.sum(axis=0), 0)
        # floats beyond full scale were not cut off there
        full = np.where(self._edges.max(axis=0) <= 1.0, self._full, 0)
        return tuple((np.maximum(flat, full) / self._samples).tolist())


def _in_rows(near: NDArray[np.bool_], least: int) -> NDArray[np.int64]:
    """Count the true values (samples, channels) that stand in a row of so many or more."""
    rows = near[: max(0, len(near) - least + 1)].copy()
    for shift in range(1, least):
        rows &= near[shift : shift + len(rows)]
    members = np.zeros_like(near)
    for shift in range(least):
        members[shift : shift + len(rows)] |= rows
    return np.asarray(members.sum(axis=0))


def to_full_scale(signals: Sequence[Array]) -> tuple[list[Array], tuple[str, ...]]:
    """Scale signals of one file to [-1, 1], all by one factor, and remove a constant offset.

    Floats on the scale of 16, 24 or 32 bits are divided by it. If a tenth of a percent of the
    samples lies beyond full scale, the level of the file is lowered; fewer are clipped. An offset
    is removed if it is at least ``LEAST_OFFSET``.

    Args:
        signals: The mixture first, then single channels; (N,) each, finite.

    Returns:
        The signals, and what was changed, in words.

    Raises:
        ValueError: If no scale is known on which the samples would lie.
    """
    made, changes = list(signals), []
    peak = max(float(np.abs(one).max()) for one in made)
    if peak > _MOST_GAIN and _beyond(made, _MOST_GAIN):
        unit = next(((bits, most) for bits, most in _UNITS if peak <= 1.01 * most), None)
        if unit is None:
            raise ValueError(f"its samples reach {peak:.3g}, which is no known scale")
        made = [one / np.float32(unit[1]) for one in made]
        changes.append(
            f"samples reach {peak:.0f}, the scale of {unit[0]} bits: divided by {unit[1]:.0f}"
        )
    offsets = [_offset(one) for one in made]
    largest = max(offsets, key=abs)
    if abs(largest) >= LEAST_OFFSET:
        made = [one - np.float32(offset) for one, offset in zip(made, offsets, strict=True)]
        changes.append(f"a constant offset of {largest:.1%} of full scale removed")
    peak = max(float(np.abs(one).max()) for one in made) if changes else peak
    if peak <= 1.0:
        return made, tuple(changes)
    if _beyond(made, 1.0):
        made = [one / np.float32(peak) for one in made]
        changes.append(f"samples reach {peak:.3g}, full scale is 1: divided by it")
    if beyond := int((np.abs(made[0]) > 1.0).sum()):
        changes.append(f"{beyond} samples beyond full scale clipped")
    return [one.clip(-1.0, 1.0) for one in made], tuple(changes)


def _offset(signal: Array) -> float:
    """Return the mean of a signal, without the exact zeros that a converter may have padded."""
    total, used = float(signal.sum(dtype=np.float64)), int(np.count_nonzero(signal))
    return total / max(1, used)


def _beyond(signals: Sequence[Array], limit: float) -> bool:
    """Tell whether more samples lie beyond a limit than a click or a codec leaves there."""
    return any(float((np.abs(one) > limit).mean()) > _BEYOND_SHARE for one in signals)
