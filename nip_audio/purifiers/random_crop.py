"""Random crop: only a part of the recording is heard."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from nip_audio.core.adapter import Batch, Bounds, length_mask
from nip_audio.purifiers._checks import check_number
from nip_audio.purifiers.base import Level, Purifier

__all__ = ["RandomCrop"]


class RandomCrop(Purifier):
    """Keep a random contiguous share of each item (RC), repeated until the item is full again.

    Deviation: cropping images (Guo et al., ICLR 2018) scales the crop up to the old size, which
    would change a voice's pitch; a crop left shorter would change the shape, and silence in place
    of the rest a model's statistics over time. So the crop is played again from its start.

    Args:
        share: Of the valid positions, kept.
        bounds: Range of values, which a crop never leaves.
    """

    level: ClassVar[Level] = "raw"
    differentiable: ClassVar[bool] = True
    random: ClassVar[bool] = True

    def __init__(self, *, share: float = 0.8, bounds: Bounds) -> None:
        """See the class."""
        check_number("share", share, 0.05, 0.99, usual=0.8)
        self.share = share
        self.bounds = bounds

    @property
    def name(self) -> str:
        """Name with the share."""
        return f"crop {100 * self.share:g} %"

    def settings(self) -> dict[str, Any]:
        """Return the share."""
        return {"name": "random-crop", "share": self.share}

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Crop along the last axis, from a place drawn for each item."""
        x = batch.x
        size = x.shape[-1]
        lengths = batch.lengths
        if lengths is None:
            lengths = torch.full((len(batch),), size, device=x.device)
        kept = (self.share * lengths.double()).round().long().clamp_min(1)
        drawn = torch.rand(len(batch), dtype=torch.float64, generator=generator).to(x.device)
        start = (drawn * (lengths - kept + 1)).long()
        position = torch.arange(size, device=x.device)
        source = start[:, None] + position[None] % kept[:, None]
        source = torch.where(length_mask(lengths, size), source, 0)
        index = source.reshape(len(batch), *[1] * (x.dim() - 2), size).expand(x.shape)
        return batch.with_x(batch.with_x(x.gather(-1, index)).masked())
