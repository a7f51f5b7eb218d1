"""Feature distillation: JPEG's quantisation, with a table made against attacks."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.errors import InputError
from nip_audio.purifiers._checks import check_whole, planes_of
from nip_audio.purifiers._items import each_item
from nip_audio.purifiers._windows import mirrored
from nip_audio.purifiers.base import Level, Purifier

__all__ = ["FeatureDistillation"]

_BLOCK = 8
_SENSITIVE = 4  # rows and columns of a block's low frequencies, which accuracy rests on


class FeatureDistillation(Purifier):
    """Round the cosine transform of 8 × 8 blocks more coarsely (FD; Liu et al., CVPR 2019).

    One step for the 4 × 4 lowest frequencies of a block, which accuracy is sensitive to, and a
    larger one for the others, where attacks have more of their energy than the input has. The
    defaults are those of the authors' published code, which like this one compresses once.

    Deviation: items are mirrored up to whole blocks; the code takes sizes divisible by 8 only.

    Args:
        fine_step: For the low frequencies, in 1/255 of the range.
        coarse_step: For the others.
        bounds: Range of values.
    """

    level: ClassVar[Level] = "input"
    differentiable: ClassVar[bool] = False
    random: ClassVar[bool] = False

    def __init__(self, *, fine_step: int = 25, coarse_step: int = 30, bounds: Bounds) -> None:
        """See the class."""
        check_whole("fine_step", fine_step, 1, 255, usual=25)
        check_whole("coarse_step", coarse_step, 1, 255, usual=30)
        if fine_step > coarse_step:
            raise InputError(
                f"fine_step is {fine_step}, expected at most coarse_step = {coarse_step}; "
                "exchange them"
            )
        self.fine_step = fine_step
        self.coarse_step = coarse_step
        self.bounds = bounds

    @property
    def name(self) -> str:
        """Name with the steps."""
        return f"distillation {self.fine_step}/{self.coarse_step}"

    def settings(self) -> dict[str, Any]:
        """Return the steps."""
        return {
            "name": "feature-distillation",
            "fine_step": self.fine_step,
            "coarse_step": self.coarse_step,
        }

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Round in the frequency domain."""
        return each_item(batch, self._distilled)

    def _distilled(self, x: Tensor) -> Tensor:
        planes = planes_of(x)
        rows, columns = planes.shape[-2:]
        low, unit = self.bounds.low, (self.bounds.high - self.bounds.low) / 255
        whole = mirrored(mirrored(planes, 0, -rows % _BLOCK, axis=2), 0, -columns % _BLOCK, axis=3)
        # (planes, 1, block rows, block columns, 8, 8)
        blocks = ((whole - low) / unit).unfold(2, _BLOCK, _BLOCK).unfold(3, _BLOCK, _BLOCK)
        basis = _cosines(x)
        table = torch.full((_BLOCK, _BLOCK), float(self.coarse_step)).to(x)
        table[:_SENSITIVE, :_SENSITIVE] = self.fine_step
        rounded = ((basis @ blocks @ basis.T) / table).round() * table
        back = (basis.T @ rounded @ basis).transpose(3, 4).reshape(whole.shape)
        kept = back[..., :rows, :columns].reshape(x.shape)
        return self.bounds.clip(low + kept * unit)


def _cosines(like: Tensor) -> Tensor:
    """Return the orthonormal cosine transform of a block's axis, (8, 8)."""
    index = torch.arange(_BLOCK, dtype=torch.float64)
    basis = torch.cos(math.pi / _BLOCK * (index + 0.5)[None] * index[:, None])
    basis *= math.sqrt(2 / _BLOCK)
    basis[0] /= math.sqrt(2)
    return basis.to(like)
