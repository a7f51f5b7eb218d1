"""Sliding medians over one or two axes, and the mirrored edges that they need."""

from __future__ import annotations

import torch
from torch import Tensor


def mirrored(x: Tensor, before: int, after: int, *, axis: int) -> Tensor:
    """Extend an axis by its mirror image, the edge value included (…, b, a | a, b, …).

    An axis that is shorter than the extension is mirrored repeatedly.
    """
    size = x.shape[axis]
    position = torch.arange(-before, size + after, device=x.device) % (2 * size)
    return x.index_select(axis, torch.minimum(position, 2 * size - 1 - position))


def median(x: Tensor, kernel: int, *, axes: int) -> Tensor:
    """Median over windows of ``kernel`` positions along each of the last axes, edges mirrored.

    For an even number of values the median is the higher of the two middle ones; an even window
    has one position more before its centre than after it. Both follow SciPy's ``median_filter``.
    """
    windows = x
    for axis in range(-axes, 0):
        windows = mirrored(windows, kernel // 2, (kernel - 1) // 2, axis=axis)
    for axis in range(x.dim() - axes, x.dim()):
        windows = windows.unfold(axis, kernel, 1)
    values = windows.flatten(-axes)
    return values.kthvalue(values.shape[-1] // 2 + 1, dim=-1).values
