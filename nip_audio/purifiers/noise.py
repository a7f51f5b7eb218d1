"""Gaussian noise, the baseline that every other defence has to beat."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch, Bounds, length_mask
from nip_audio.errors import InputError
from nip_audio.purifiers.base import Level, Purifier

__all__ = ["MATCHED", "GaussianNoise", "MatchedNoise"]

MATCHED = "noise as strong as "
"""Prefix of the name of noise that is matched to another purifier."""


def _noise_like(batch: Batch, energy: Tensor, generator: torch.Generator) -> Tensor:
    """Draw white noise for the valid values, (B, *S), with a given energy (sum of squares) each."""
    drawn = torch.randn(batch.x.shape, generator=generator).to(batch.x)
    if batch.lengths is not None:
        mask = length_mask(batch.lengths, batch.x.shape[-1])
        drawn = drawn * mask.reshape(len(batch), *[1] * (batch.x.dim() - 2), -1)
    shape = (-1, *[1] * (batch.x.dim() - 1))
    norm = drawn.flatten(1).norm(dim=1).clamp_min(1e-12)
    noise: Tensor = drawn * (energy.sqrt() / norm).reshape(shape)
    return noise


class GaussianNoise(Purifier):
    """Add white Gaussian noise at a signal-to-noise ratio.

    Args:
        snr_db: Signal-to-noise ratio over the valid samples, in decibels.
        bounds: Range the result is clipped to.

    Raises:
        InputError: If ``snr_db`` is out of range.
    """

    level: ClassVar[Level] = "raw"
    differentiable = True
    random = True

    def __init__(self, *, snr_db: float = 20.0, bounds: Bounds) -> None:
        if not -60 <= snr_db <= 120:
            raise InputError(f"snr_db is {snr_db}, expected decibels between -60 and 120, e.g. 20")
        self.snr_db = snr_db
        self.bounds = Bounds.of(bounds)

    @property
    def name(self) -> str:
        """Name with the signal-to-noise ratio."""
        return f"noise {self.snr_db:g} dB"

    def settings(self) -> dict[str, Any]:
        """Return the signal-to-noise ratio."""
        return {"name": "noise", "snr_db": self.snr_db}

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Add noise; no gradient flows through its level."""
        signal = batch.masked()
        energy = signal.detach().flatten(1).square().sum(dim=1) / 10 ** (self.snr_db / 10)
        noisy = self.bounds.clip(signal + _noise_like(batch, energy, generator))
        return batch.with_x(noisy)


class MatchedNoise(Purifier):
    """Add white noise with the same energy, item by item, as the change of another purifier.

    A purifier that is no better than this control owes its effect to the size of its change alone.

    Args:
        other: Purifier to compare with.
        bounds: Range the result is clipped to.
    """

    differentiable = True
    random = True

    def __init__(self, other: Purifier, *, bounds: Bounds) -> None:
        self.other = other
        self.bounds = Bounds.of(bounds)
        self.level: Level = other.level  # type: ignore[misc]
        self.before = other.before

    @property
    def name(self) -> str:
        """Name with that of the other purifier."""
        return f"{MATCHED}{self.other.name}"

    @property
    def seen(self) -> frozenset[str]:
        """Content hashes of everything the other purifier was fitted on."""
        return self.other.seen

    def settings(self) -> dict[str, Any]:
        """Return the settings of the other purifier."""
        return {"name": "matched noise", "of": self.other.settings()}

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Add noise as strong as the other purifier's change."""
        signal = batch.masked()
        with torch.no_grad():
            changed = self.other.purify(batch, generator=generator).masked() - signal
        energy = changed.flatten(1).square().sum(dim=1)
        return batch.with_x(self.bounds.clip(signal + _noise_like(batch, energy, generator)))
