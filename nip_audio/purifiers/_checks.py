"""Checks of the settings and inputs of purifiers."""

from __future__ import annotations

import math

from torch import Tensor

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.errors import InputError


def check_whole(name: str, value: int, low: int, high: int, *, usual: int) -> None:
    """Check that a setting is a whole number from ``low`` to ``high``.

    Raises:
        InputError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(
            f"{name} is {value!r}, expected {low} to {high}, a whole number; {usual} is usual"
        )


def check_number(name: str, value: float, low: float, high: float, *, usual: float) -> None:
    """Check that a setting is a finite number from ``low`` to ``high``.

    Raises:
        InputError: If it is not.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not low <= value <= high:
        raise InputError(f"{name} is {value!r}, expected {low:g} to {high:g}; {usual:g} is usual")


def check_full_scale(bounds: Bounds) -> None:
    """Check that bounds are those of a waveform, (-1, 1).

    Raises:
        InputError: If they are not.
    """
    bounds = Bounds.of(bounds)
    if (bounds.low, bounds.high) != (-1.0, 1.0):
        raise InputError(
            f"bounds are ({bounds.low:g}, {bounds.high:g}), expected (-1, 1), the full scale of "
            "a waveform; choose a purifier that accepts this model's input"
        )


def check_waveforms(batch: Batch) -> None:
    """Check that a batch holds waveforms, (B, N).

    Raises:
        InputError: If it has another shape.
    """
    if batch.x.dim() != 2:
        raise InputError(
            f"input has shape {tuple(batch.x.shape)}, expected waveforms (items, samples); choose "
            "a purifier that accepts this input"
        )


def planes_of(x: Tensor) -> Tensor:
    """Reshape spectrograms (B, F, T) or images (B, C, F, T) to single planes: (B·C, 1, F, T).

    Raises:
        InputError: If the input has another number of axes.
    """
    if x.dim() not in (3, 4):
        raise InputError(
            f"input has shape {tuple(x.shape)}, expected spectrograms (items, rows, columns) or "
            "images (items, channels, rows, columns); choose a purifier that accepts this input"
        )
    return x.reshape(-1, 1, *x.shape[-2:])
