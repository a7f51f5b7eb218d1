"""Spatial smoothing (SS): a median filter over rows and columns, or frequency and time."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.purifiers._checks import check_whole, planes_of
from nip_audio.purifiers._items import each_item
from nip_audio.purifiers._windows import median
from nip_audio.purifiers.base import Level, Purifier

__all__ = ["SpatialSmoothing"]


class SpatialSmoothing(Purifier):
    """Replace every value by the median of kernel × kernel neighbours (SS; Xu et al., NDSS 2018).

    Mirrored edges and even kernels follow the authors' code and the Adversarial Robustness Toolbox,
    both of which call SciPy's ``median_filter``; here gradients flow to the chosen values.

    Args:
        kernel: Number of rows and of columns of a neighbourhood.
        bounds: Range of the values; a median never leaves it.

    Raises:
        InputError: If ``kernel`` is out of range.
    """

    level: ClassVar[Level] = "input"
    differentiable: ClassVar[bool] = True
    random: ClassVar[bool] = False

    def __init__(self, *, kernel: int = 3, bounds: Bounds) -> None:
        check_whole("kernel", kernel, 2, 15, usual=3)
        self.kernel = kernel
        self.bounds = Bounds.of(bounds)

    @property
    def name(self) -> str:
        """Name with the size of the neighbourhood."""
        return f"smoothing {self.kernel}×{self.kernel}"

    def settings(self) -> dict[str, Any]:
        """Return the size of the neighbourhood."""
        return {"name": "spatial-smoothing", "kernel": self.kernel}

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Filter every channel over the last two axes."""
        return each_item(batch, self._smoothed)

    def _smoothed(self, x: Tensor) -> Tensor:
        return median(planes_of(x), self.kernel, axes=2).reshape(x.shape)
