"""Random crop (RC): the model receives only a part of the recording."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from nip_audio.core.adapter import Batch, Bounds, length_mask
from nip_audio.purifiers._checks import check_number
from nip_audio.purifiers.base import Level, Purifier

__all__ = ["RandomCrop"]


class RandomCrop(Purifier):
    """Keep a random contiguous share of each item, and repeat it to the original length.

    Deviation: cropping of images (Guo et al., ICLR 2018) scales the crop up to the original size,
    which would change the pitch of a voice. A shorter result would change the shape of the input,
    and silence in place of the rest would change a model's statistics over time. The crop is
    therefore repeated from its start.

    Args:
        share: Share of the valid positions that is kept.
        bounds: Range of the values; a crop never leaves it.

    Raises:
        InputError: If ``share`` is out of range.
    """

    level: ClassVar[Level] = "raw"
    differentiable: ClassVar[bool] = True
    random: ClassVar[bool] = True

    def __init__(self, *, share: float = 0.8, bounds: Bounds) -> None:
        check_number("share", share, 0.05, 0.99, usual=0.8)
        self.share = share
        self.bounds = Bounds.of(bounds)

    @property
    def name(self) -> str:
        """Name with the share."""
        return f"crop {100 * self.share:g} %"

    def settings(self) -> dict[str, Any]:
        """Return the share."""
        return {"name": "random-crop", "share": self.share}

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Crop along the last axis, from a start drawn for each item."""
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
