"""Feature distillation (FD): quantisation as in JPEG, with a table designed against attacks."""

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
_SENSITIVE = 4  # rows and columns of a block's low frequencies, which accuracy depends on


class FeatureDistillation(Purifier):
    """Round the cosine transform of 8 × 8 blocks more coarsely (FD; Liu et al., CVPR 2019).

    The 4 × 4 lowest frequencies of a block, to which accuracy is sensitive, are rounded with one
    step; the others, which hold a larger share of an attack's energy than of the input's, with a
    larger one. The defaults are those of the authors' published code, which also compresses once.

    Deviation: items are mirrored up to whole blocks; the authors' code accepts only sizes divisible
    by 8.

    Args:
        fine_step: Quantisation step of the low frequencies, in 1/255 of the range.
        coarse_step: Quantisation step of the other frequencies, in 1/255 of the range.
        bounds: Range of the input, which the result is clipped to.

    Raises:
        InputError: If a step is out of range, or ``fine_step`` exceeds ``coarse_step``.
    """

    level: ClassVar[Level] = "input"
    differentiable: ClassVar[bool] = False
    random: ClassVar[bool] = False

    def __init__(self, *, fine_step: int = 25, coarse_step: int = 30, bounds: Bounds) -> None:
        check_whole("fine_step", fine_step, 1, 255, usual=25)
        check_whole("coarse_step", coarse_step, 1, 255, usual=30)
        if fine_step > coarse_step:
            raise InputError(
                f"fine_step is {fine_step}, expected at most coarse_step = {coarse_step}; "
                "swap the two"
            )
        self.fine_step = fine_step
        self.coarse_step = coarse_step
        self.bounds = Bounds.of(bounds)

    @property
    def name(self) -> str:
        """Name with both quantisation steps."""
        return f"distillation {self.fine_step}/{self.coarse_step}"

    def settings(self) -> dict[str, Any]:
        """Return both quantisation steps."""
        return {
            "name": "feature-distillation",
            "fine_step": self.fine_step,
            "coarse_step": self.coarse_step,
        }

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Quantise every block in the frequency domain."""
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
    """Return the orthonormal cosine transform of one axis of a block, (8, 8)."""
    index = torch.arange(_BLOCK, dtype=torch.float64)
    basis = torch.cos(math.pi / _BLOCK * (index + 0.5)[None] * index[:, None])
    basis *= math.sqrt(2 / _BLOCK)
    basis[0] /= math.sqrt(2)
    return basis.to(like)
