"""Windows over an axis or two, and the mirrored edges they need."""

from __future__ import annotations

import torch
from torch import Tensor


def mirrored(x: Tensor, before: int, after: int, *, axis: int) -> Tensor:
    """Lengthen an axis by its mirror image, the edge values included (…, b, a | a, b, …).

    However short the axis is: the image of an image follows.
    """
    size = x.shape[axis]
    position = torch.arange(-before, size + after, device=x.device) % (2 * size)
    return x.index_select(axis, torch.minimum(position, 2 * size - 1 - position))


def median(x: Tensor, kernel: int, *, axes: int) -> Tensor:
    """Median over windows of ``kernel`` positions along each of the last axes, edges mirrored.

    For an even number of values it is the higher of the two middle ones; an even window has one
    position more before than after its centre. Both as in SciPy's ``median_filter``.
    """
    windows = x
    for axis in range(-axes, 0):
        windows = mirrored(windows, kernel // 2, (kernel - 1) // 2, axis=axis)
    for axis in range(x.dim() - axes, x.dim()):
        windows = windows.unfold(axis, kernel, 1)
    values = windows.flatten(-axes)
    return values.kthvalue(values.shape[-1] // 2 + 1, dim=-1).values
