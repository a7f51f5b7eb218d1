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
    """Round values to fewer levels over the bounds.

    Raw input is rounded to multiples of 1/2^bits of the range (QTZ), so that silence stays silent.
    Model input is rounded to 2^bits levels from the lower bound to the upper: the bit-depth
    reduction of Xu et al. (NDSS 2018), called CBDR in the tables of the paper on neuron-level
    inverse perturbation (NIP).

    Args:
        bits: Number of bits per value.
        level: Where the purifier works: on raw input or on model input.
        bounds: Range of the values.

    Raises:
        InputError: If ``bits`` is out of range, or ``level`` is unknown.
    """

    differentiable: ClassVar[bool] = False
    random: ClassVar[bool] = False

    def __init__(self, *, bits: int = 8, level: Level = "raw", bounds: Bounds) -> None:
        check_whole("bits", bits, 1, 16, usual=8)
        if level not in ("raw", "input"):
            raise InputError(f"level is {level!r}, expected 'raw' or 'input'")
        self.bits = bits
        self.level: Level = level  # type: ignore[misc]
        self.bounds = Bounds.of(bounds)

    @property
    def name(self) -> str:
        """Name with the number of bits."""
        return f"{'quantisation' if self.level == 'raw' else 'bit depth'} {self.bits} bits"

    def settings(self) -> dict[str, Any]:
        """Return the number of bits."""
        name = "quantization" if self.level == "raw" else "bit-depth"
        return {"name": name, "bits": self.bits}

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Round every value to its nearest level."""
        low, span = self.bounds.low, self.bounds.high - self.bounds.low
        if self.level == "raw":
            step = span / 2**self.bits
            return batch.with_x(self.bounds.clip((batch.masked() / step).round() * step))
        step = span / (2**self.bits - 1)
        rounded = self.bounds.clip(low + ((batch.x - low) / step).round() * step)
        return batch.with_x(batch.with_x(rounded).masked())
