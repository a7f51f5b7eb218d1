"""Bicubic: remove fine detail by shrinking the input, then enlarge it again."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.purifiers._checks import check_whole, planes_of
from nip_audio.purifiers._items import each_item
from nip_audio.purifiers.base import Level, Purifier

__all__ = ["Bicubic"]


class Bicubic(Purifier):
    """Shrink the input with an anti-aliasing filter and enlarge it again, both bicubic.

    It stands in for super resolution (SR).

    Deviation: Mustafa et al. (IEEE TIP 2019) first denoise with soft thresholds on wavelet
    coefficients (BayesShrink), then double the resolution with a deep network trained to restore
    images, and classify the larger image. There is no such network for spectrograms, and the models
    here accept one number of rows only. The input is therefore shrunk first, the enlargement is a
    plain interpolation, and there are no wavelets. What remains of the method is that the fine
    detail the model receives depends on the coarse structure alone.

    Args:
        factor: Factor by which rows and columns are reduced before they are enlarged.
        bounds: Range the result is clipped to.

    Raises:
        InputError: If ``factor`` is out of range.
    """

    level: ClassVar[Level] = "input"
    differentiable: ClassVar[bool] = True
    random: ClassVar[bool] = False

    def __init__(self, *, factor: int = 2, bounds: Bounds) -> None:
        check_whole("factor", factor, 2, 8, usual=2)
        self.factor = factor
        self.bounds = Bounds.of(bounds)

    @property
    def name(self) -> str:
        """Name with the factor."""
        return f"bicubic {self.factor}"

    def settings(self) -> dict[str, Any]:
        """Return the factor."""
        return {"name": "bicubic", "factor": self.factor}

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Shrink and enlarge every channel."""
        return each_item(batch, self._resized)

    def _resized(self, x: Tensor) -> Tensor:
        planes = planes_of(x)
        rows, columns = planes.shape[-2:]
        coarse = [-(-rows // self.factor), -(-columns // self.factor)]
        small = interpolate(planes, size=coarse, mode="bicubic", antialias=True)
        large = interpolate(small, size=[rows, columns], mode="bicubic")
        return self.bounds.clip(large.reshape(x.shape))
