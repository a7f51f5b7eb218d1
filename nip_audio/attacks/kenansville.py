"""Kenansville: removes the weakest spectral components until the decision changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nip_audio.attacks.base import Attack, Norm, System
from nip_audio.errors import AttackError

__all__ = ["Kenansville", "drop_weakest"]

_LEAST_SNR_DB, _MOST_SNR_DB = 3.0, 60.0


@dataclass(frozen=True)
class Kenansville(Attack):
    """Removes the spectral components of least energy (Abdullah et al. 2021, the DFT attack).

    It uses neither gradients nor additive noise. Bisection finds the smallest amount of energy
    whose removal succeeds, between signal-to-removed ratios of 60 and 3 dB. An item on which the
    attack fails at 3 dB, with half the energy removed, is returned unchanged.

    Attributes:
        steps: Number of bisection steps.

    Raises:
        AttackError: If ``steps`` is less than 1.
    """

    steps: int = 12

    white_box: ClassVar[bool] = False
    norm: ClassVar[Norm] = "other"

    def __post_init__(self) -> None:
        """Validate the settings."""
        if self.steps < 1:
            raise AttackError(f"steps is {self.steps}, expected ≥ 1")

    @property
    def name(self) -> str:
        """Name in the registry."""
        return "kenansville"

    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        batch = system.batch
        if batch.x.dim() != 2:
            raise AttackError(
                f"kenansville got input of shape {tuple(batch.x.shape)}, expected waveforms "
                "(items, samples); work at level 'raw'"
            )
        clips = [batch.item(i).x[0] for i in range(len(batch))]

        def dropped(snr_db: Tensor) -> Tensor:
            x = torch.zeros_like(batch.x)
            for row, clip, level in zip(x, clips, snr_db.tolist(), strict=True):
                row[: len(clip)] = drop_weakest(clip, snr_db=level)
            return system.bounds.clip(x)

        low = torch.full((len(clips),), _LEAST_SNR_DB)  # the strongest attack
        high = torch.full((len(clips),), _MOST_SNR_DB)
        lowest = dropped(low)
        fools = system.fooled(lowest)
        found = torch.where(fools[:, None], lowest, batch.x)
        for _ in range(self.steps):
            middle = (low + high) / 2
            x = dropped(middle)
            hit = system.fooled(x)
            found = torch.where((hit & fools)[:, None], x, found)
            low, high = torch.where(hit, middle, low), torch.where(hit, high, middle)
        return found


def drop_weakest(clip: Tensor, *, snr_db: float) -> Tensor:
    """Remove the weakest components of the DFT, as many as a signal-to-removed ratio allows.

    Args:
        clip: (N,) samples of the clip.
        snr_db: Ratio of the energy of the clip to the energy removed, in dB.

    Returns:
        (N,) samples without the components.
    """
    spectrum = torch.fft.rfft(clip.double())
    energy = spectrum.abs().square()
    order = energy.argsort()
    removed = energy[order].cumsum(0) <= energy.sum() * 10 ** (-snr_db / 10)
    kept = spectrum.clone()
    kept[order[removed]] = 0
    out: Tensor = torch.fft.irfft(kept, n=len(clip)).to(clip.dtype)
    return out
