"""MEH-FEST: how quiet do the high frequencies get? Noise that is everywhere fills the pauses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError

__all__ = ["MehFest", "least_high_energy"]

Array = NDArray[np.float64]

_FLOOR = 1e-10


def least_high_energy(samples: Tensor, *, sample_rate_hz: int, share: float = 7 / 8) -> Tensor:
    """Return the least energy, over short frames, of the high frequencies.

    Frames of 25 ms, every 10 ms, under a Hann window; at 16 kHz the spectrum has 512 points. What
    is shorter than one frame is filled up with zeros.

    Args:
        samples: (N,) in [-1, 1].
        sample_rate_hz: Their rate.
        share: Of the band, from which on frequencies are high: 7 of 8 kHz.

    Returns:
        () sum of the squared magnitudes of those bins, in the quietest frame; ≥ 0, in the autograd
        graph.

    Example:
        >>> time_s = torch.arange(16000, dtype=torch.float64) / 16000
        >>> bool(least_high_energy(torch.sin(2764.6 * time_s), sample_rate_hz=16000) < 1e-3)
        True
    """
    frame = round(0.025 * sample_rate_hz)
    size = 1 << (frame - 1).bit_length()
    filled = nn.functional.pad(samples, (0, max(0, size - len(samples))))
    spectrum = torch.stft(
        filled,
        n_fft=size,
        hop_length=round(0.01 * sample_rate_hz),
        win_length=frame,
        window=torch.hann_window(frame).to(samples),
        center=False,
        return_complex=True,
    )
    high = spectrum[round(share * size / 2) :]
    return (high.real**2 + high.imag**2).sum(dim=0).amin()


class MehFest:
    """Minimum energy in high frequencies for short time, a ``Measure`` (Chen 2022).

    Made against FAKEBOB, whose perturbation is like white noise: where nobody speaks, and above 7
    kHz, recordings are nearly silent, and the perturbation is not. The settings are those of the
    paper's published programs: 512 points, frames of 400 samples every 160, bins from 7 kHz.

    A row has one entry, in decibels: the order is the paper's, and a floor of -100 keeps digital
    silence finite. For other rates than 16 kHz, which the paper does not treat, times and the share
    of the band are kept.

    Deviation: none but the scale. The model is not looked at, and need have no head.

    Args:
        sample_rate_hz: Rate of the waveforms.

    Raises:
        InputError: If the rate is no rate.
    """

    source = "Chen (MEH-FEST), arXiv 2202.05725"

    def __init__(self, *, sample_rate_hz: int) -> None:
        """See the class."""
        if not sample_rate_hz >= 1000:
            raise InputError(f"sample rate is {sample_rate_hz} Hz, expected 1000 or more")
        self.name = "MEH-FEST"
        self.sample_rate_hz = sample_rate_hz

    @property
    def passes(self) -> float:
        """None."""
        return 0

    def settings(self) -> dict[str, Any]:
        """Return the rate."""
        return {"name": self.name, "sample_rate_hz": self.sample_rate_hz}

    def fit(
        self, model: InstrumentedModel, clean: Sequence[Batch], *, generator: torch.Generator
    ) -> Self:
        """Do nothing: there is nothing to learn."""
        return self

    def measure(
        self, model: InstrumentedModel, item: Batch, *, generator: torch.Generator
    ) -> Array:
        """Measure one raw item (a batch of one waveform, unpadded): (1,) decibels.

        Raises:
            InputError: If the item is no batch of one waveform without padding, or not finite.
        """
        return np.asarray(self.entry(item).detach().cpu().numpy())

    def entry(self, item: Batch) -> Tensor:
        """``measure`` in the autograd graph: (1,) float64.

        Raises:
            InputError: If the item is no batch of one waveform without padding, or not finite.
        """
        if item.x.dim() != 2 or len(item) != 1 or item.lengths is not None:
            raise InputError(
                f"got {tuple(item.x.shape)}, expected one waveform (1, samples) without padding; "
                "use Batch.item(i)"
            )
        if not bool(item.x.isfinite().all()):
            raise InputError(
                "the item has values that are not finite, expected numbers; read it again"
            )
        energy = least_high_energy(item.x[0].double(), sample_rate_hz=self.sample_rate_hz)
        return 10 * torch.log10(energy.clamp_min(_FLOOR))[None]

    def suspicion(self, rows: Array) -> Array:
        """Return the energy."""
        return np.asarray(rows[:, 0])
