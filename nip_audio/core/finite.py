"""Refuse to decide by numbers that are NaN or infinite, whose comparisons mean nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nip_audio.errors import InputError

__all__ = ["require_finite", "require_finite_values"]


def require_finite(**values: float | None) -> None:
    """Refuse numbers by which something is decided, if one is NaN or infinite; None is no number.

    Raises:
        InputError: If one is not finite; the text names it.

    Example:
        >>> require_finite(distance=1.0, threshold=float("nan"))
        Traceback (most recent call last):
        ...
        nip_audio.errors.InputError: threshold is nan, expected a finite number: nothing can be \
decided by it; make the calibration, the enrolment or the model again
    """
    for name, value in values.items():
        if value is not None and not math.isfinite(value):
            raise InputError(
                f"{name.replace('_', ' ')} is {value}, expected a finite number: nothing can be "
                "decided by it; make the calibration, the enrolment or the model again"
            )


def require_finite_values(
    arrays: Mapping[str, Tensor | NDArray[np.floating]],
    *,
    of: str,
    error: type[Exception] = InputError,
) -> None:
    """Refuse arrays with values that are NaN or infinite.

    Args:
        arrays: Arrays by name.
        of: What they belong to, in words.
        error: Error to raise.
    """
    for name, values in arrays.items():
        if isinstance(values, Tensor):
            finite = not values.is_floating_point() or bool(values.isfinite().all())
        else:
            finite = bool(np.isfinite(values).all())
        if not finite:
            raise error(
                f"{of} holds values that are NaN or infinite in {name!r}, expected finite ones; "
                "create it again"
            )
