"""Plain noise, the defence every other has to beat."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch, Bounds, length_mask
from nip_audio.errors import InputError
from nip_audio.purifiers.base import Level, Purifier

__all__ = ["MATCHED", "GaussianNoise", "MatchedNoise"]

MATCHED = "noise as strong as "
"""How the names of noise begin that is matched to another purifier."""


def _noise_like(batch: Batch, energy: Tensor, generator: torch.Generator) -> Tensor:
    """White noise over the valid values, (B, *S), of a given energy (sum of squares) an item."""
    drawn = torch.randn(batch.x.shape, generator=generator).to(batch.x)
    if batch.lengths is not None:
        mask = length_mask(batch.lengths, batch.x.shape[-1])
        drawn = drawn * mask.reshape(len(batch), *[1] * (batch.x.dim() - 2), -1)
    shape = (-1, *[1] * (batch.x.dim() - 1))
    norm = drawn.flatten(1).norm(dim=1).clamp_min(1e-12)
    noise: Tensor = drawn * (energy.sqrt() / norm).reshape(shape)
    return noise


class GaussianNoise(Purifier):
    """White Gaussian noise at a signal-to-noise ratio.

    Args:
        snr_db: Ratio of the energies over the valid samples.
        bounds: Range the result is clipped to.
    """

    level: ClassVar[Level] = "raw"
    differentiable = True
    random = True

    def __init__(self, *, snr_db: float = 20.0, bounds: Bounds) -> None:
        """See the class."""
        if not -60 <= snr_db <= 120:
            raise InputError(f"snr_db is {snr_db}, expected decibels between -60 and 120, e.g. 20")
        self.snr_db = snr_db
        self.bounds = bounds

    @property
    def name(self) -> str:
        """Name with the level."""
        return f"noise {self.snr_db:g} dB"

    def settings(self) -> dict[str, Any]:
        """Return the level."""
        return {"name": "noise", "snr_db": self.snr_db}

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Add noise. Its level is the defender's choice: no gradient flows through it."""
        signal = batch.masked()
        energy = signal.detach().flatten(1).square().sum(dim=1) / 10 ** (self.snr_db / 10)
        noisy = self.bounds.clip(signal + _noise_like(batch, energy, generator))
        return batch.with_x(noisy)


class MatchedNoise(Purifier):
    """White noise with just the energy, item by item, of what another purifier changes.

    A purifier that does no better than this has no idea of its own.

    Args:
        other: The purifier to be compared with.
        bounds: Range the result is clipped to.
    """

    differentiable = True
    random = True

    def __init__(self, other: Purifier, *, bounds: Bounds) -> None:
        """See the class."""
        self.other = other
        self.bounds = bounds
        self.level: Level = other.level  # type: ignore[misc]
        self.before = other.before

    @property
    def name(self) -> str:
        """Name of the other one."""
        return f"{MATCHED}{self.other.name}"

    @property
    def seen(self) -> frozenset[str]:
        """What the other one was fitted on: its strength depends on it."""
        return self.other.seen

    def settings(self) -> dict[str, Any]:
        """Return the settings of the other one."""
        return {"name": "matched noise", "of": self.other.settings()}

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Add noise as strong as the other purifier's change."""
        signal = batch.masked()
        with torch.no_grad():
            changed = self.other.purify(batch, generator=generator).masked() - signal
        energy = changed.flatten(1).square().sum(dim=1)
        return batch.with_x(self.bounds.clip(signal + _noise_like(batch, energy, generator)))
