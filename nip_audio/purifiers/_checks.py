"""What settings and inputs of purifiers must be like."""

from __future__ import annotations

import math

from torch import Tensor

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.errors import InputError


def check_whole(name: str, value: int, low: int, high: int, *, usual: int) -> None:
    """Refuse a setting that is no whole number from ``low`` to ``high``.

    Raises:
        InputError: Then.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(
            f"{name} is {value!r}, expected {low} to {high}, a whole number; {usual} is usual"
        )


def check_number(name: str, value: float, low: float, high: float, *, usual: float) -> None:
    """Refuse a setting that is no number from ``low`` to ``high``.

    Raises:
        InputError: Then.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not low <= value <= high:
        raise InputError(f"{name} is {value!r}, expected {low:g} to {high:g}; {usual:g} is usual")


def check_full_scale(bounds: Bounds) -> None:
    """Refuse bounds that are not those of a waveform.

    Raises:
        InputError: Then.
    """
    if (bounds.low, bounds.high) != (-1.0, 1.0):
        raise InputError(
            f"bounds are ({bounds.low:g}, {bounds.high:g}), expected (-1, 1), the full scale of "
            "a waveform; choose a purifier of another kind of input"
        )


def check_waveforms(batch: Batch) -> None:
    """Refuse what is not (B, N).

    Raises:
        InputError: Then.
    """
    if batch.x.dim() != 2:
        raise InputError(
            f"input is {tuple(batch.x.shape)}, expected waveforms (items, samples); choose a "
            "purifier of another kind of input"
        )


def planes_of(x: Tensor) -> Tensor:
    """Return the images (B, F, T) or (B, C, F, T) plane by plane: (B·C, 1, F, T).

    Raises:
        InputError: If they are neither.
    """
    if x.dim() not in (3, 4):
        raise InputError(
            f"input is {tuple(x.shape)}, expected spectrograms (items, rows, columns) or images "
            "(items, channels, rows, columns); choose a purifier of another kind of input"
        )
    return x.reshape(-1, 1, *x.shape[-2:])
