"""Quantisation: round values to fewer levels."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.errors import InputError
from nip_audio.purifiers._checks import check_whole
from nip_audio.purifiers.base import Level, Purifier

__all__ = ["Quantization"]


class Quantization(Purifier):
    """Round to fewer levels over the bounds.

    On raw input (QTZ), to multiples of 1/2^bits of the range, so that silence stays silence. On the
    model's input it is the bit-depth reduction of Xu et al. (NDSS 2018), CBDR in the tables of NIP:
    2^bits levels from the lower bound to the upper.

    Args:
        bits: Bits a value.
        level: Where it works.
        bounds: Range of values.
    """

    differentiable: ClassVar[bool] = False
    random: ClassVar[bool] = False

    def __init__(self, *, bits: int = 8, level: Level = "raw", bounds: Bounds) -> None:
        """See the class."""
        check_whole("bits", bits, 1, 16, usual=8)
        if level not in ("raw", "input"):
            raise InputError(f"level is {level!r}, expected 'raw' or 'input'")
        self.bits = bits
        self.level: Level = level  # type: ignore[misc]
        self.bounds = bounds

    @property
    def name(self) -> str:
        """Name with the number of bits."""
        return f"{'quantisation' if self.level == 'raw' else 'bit depth'} {self.bits} bits"

    def settings(self) -> dict[str, Any]:
        """Return the number of bits."""
        name = "quantization" if self.level == "raw" else "bit-depth"
        return {"name": name, "bits": self.bits}

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Round."""
        low, span = self.bounds.low, self.bounds.high - self.bounds.low
        if self.level == "raw":
            step = span / 2**self.bits
            return batch.with_x(self.bounds.clip((batch.masked() / step).round() * step))
        step = span / (2**self.bits - 1)
        rounded = self.bounds.clip(low + ((batch.x - low) / step).round() * step)
        return batch.with_x(batch.with_x(rounded).masked())
