"""Median filter over the samples of a waveform."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.errors import InputError
from nip_audio.purifiers._checks import check_whole
from nip_audio.purifiers._items import each_item
from nip_audio.purifiers._windows import median
from nip_audio.purifiers.base import Level, Purifier

__all__ = ["MedianFilter"]


class MedianFilter(Purifier):
    """Replace every sample by the median of its neighbourhood; edges are mirrored.

    The audio literature calls this local smoothing (Yang et al. 2018).

    Args:
        kernel: Number of samples of a neighbourhood, odd.
        bounds: Range of the samples; a median never leaves it.

    Raises:
        InputError: If ``kernel`` is even or out of range.
    """

    level: ClassVar[Level] = "raw"
    differentiable: ClassVar[bool] = True
    random: ClassVar[bool] = False

    def __init__(self, *, kernel: int = 3, bounds: Bounds) -> None:
        check_whole("kernel", kernel, 3, 101, usual=3)
        if kernel % 2 == 0:
            raise InputError(f"kernel is {kernel}, expected an odd number; use {kernel + 1}")
        self.kernel = kernel
        self.bounds = Bounds.of(bounds)

    @property
    def name(self) -> str:
        """Name with the size of the neighbourhood."""
        return f"median {self.kernel}"

    def settings(self) -> dict[str, Any]:
        """Return the size of the neighbourhood."""
        return {"name": "median", "kernel": self.kernel}

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Filter along the last axis."""
        return each_item(batch, lambda x: median(x, self.kernel, axes=1))
