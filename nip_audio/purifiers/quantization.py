"""Quantisation: round samples to fewer levels."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.errors import InputError
from nip_audio.purifiers.base import Level, Purifier

__all__ = ["Quantization"]


class Quantization(Purifier):
    """Round to 2^bits levels over the bounds (QTZ; as bit-depth reduction, Xu et al. 2018).

    Args:
        bits: Bits a value.
        bounds: Range of values.
    """

    level: ClassVar[Level] = "raw"
    differentiable = False
    random = False

    def __init__(self, *, bits: int = 8, bounds: Bounds) -> None:
        """See the class."""
        if not 1 <= bits <= 16:
            raise InputError(f"bits is {bits}, expected 1 to 16")
        self.bits = bits
        self.bounds = bounds

    @property
    def name(self) -> str:
        """Name with the number of bits."""
        return f"quantisation {self.bits} bits"

    def settings(self) -> dict[str, Any]:
        """Return the number of bits."""
        return {"name": "quantization", "bits": self.bits}

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Round; zero stays zero."""
        step = (self.bounds.high - self.bounds.low) / 2**self.bits
        return batch.with_x(self.bounds.clip((batch.masked() / step).round() * step))
