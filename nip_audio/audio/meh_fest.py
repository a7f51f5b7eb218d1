"""Detect noise-like attacks by the least energy in high frequencies (MEH-FEST).

In pauses, recordings are nearly silent at high frequencies. A perturbation like white noise fills
these pauses. MEH-FEST is the minimum energy in high frequencies for short time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

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
    """Return the energy of the high frequencies in the quietest short frame.

    Frames last 25 ms and start every 10 ms, with a Hann window; at 16 kHz the spectrum has 512
    points. A waveform shorter than one frame is padded with zeros.

    Args:
        samples: (N,) waveform in [-1, 1].
        sample_rate_hz: Sample rate of the waveform.
        share: Share of the band above which frequencies count as high; 7/8 is 7 kHz of 8 kHz.

    Returns:
        () sum of the squared magnitudes of those bins in the quietest frame, at least 0, inside the
        autograd graph.

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
    """Minimum energy in high frequencies for short time, as a ``Measure`` (Chen 2022).

    The measure was designed against FAKEBOB, whose perturbation resembles white noise: above 7 kHz
    and in pauses, recordings are nearly silent and the perturbation is not. The settings are those
    of the paper's published code: 512 points, frames of 400 samples every 160, bins from 7 kHz. The
    paper covers 16 kHz only; for other rates, the times and the share of the band stay the same.

    Deviation: the energy is in decibels, which keeps the paper's order, with a floor of -100 dB for
    digital silence. The model is not used, and needs no head.

    Args:
        sample_rate_hz: Sample rate of the waveforms.

    Raises:
        InputError: If the rate is below 1000 Hz.
    """

    source = "Chen (MEH-FEST), arXiv 2202.05725"
    as_published: ClassVar[bool] = True

    def __init__(self, *, sample_rate_hz: int) -> None:
        """Check and keep the sample rate."""
        if not sample_rate_hz >= 1000:
            raise InputError(f"sample rate is {sample_rate_hz} Hz, expected 1000 or more")
        self.name = "MEH-FEST"
        self.sample_rate_hz = sample_rate_hz

    @property
    def passes(self) -> float:
        """Forward passes through the model per item: none."""
        return 0

    def settings(self) -> dict[str, Any]:
        """Return the settings that the measurement depends on."""
        return {"name": self.name, "sample_rate_hz": self.sample_rate_hz}

    def fit(
        self, model: InstrumentedModel, clean: Sequence[Batch], *, generator: torch.Generator
    ) -> Self:
        """Return the measure unchanged; it has nothing to fit."""
        return self

    def measure(
        self, model: InstrumentedModel, item: Batch, *, generator: torch.Generator
    ) -> Array:
        """Measure one raw item.

        Args:
            model: Not used.
            item: Batch of one waveform, without padding.
            generator: Not used.

        Returns:
            (1,) energy in decibels.

        Raises:
            InputError: If the item is not one waveform without padding, or not finite.
        """
        return np.asarray(self.entry(item).detach().cpu().numpy())

    def entry(self, item: Batch) -> Tensor:
        """Measure one raw item inside the autograd graph.

        Args:
            item: Batch of one waveform, without padding.

        Returns:
            (1,) energy in decibels, float64.

        Raises:
            InputError: If the item is not one waveform without padding, or not finite.
        """
        if item.x.dim() != 2 or len(item) != 1 or item.lengths is not None:
            raise InputError(
                f"item is {tuple(item.x.shape)}, expected one waveform (1, samples) without "
                "padding; "
                "use Batch.item(i)"
            )
        if not bool(item.x.isfinite().all()):
            raise InputError(
                "the item has values that are not finite, expected finite ones; read it again"
            )
        energy = least_high_energy(item.x[0].double(), sample_rate_hz=self.sample_rate_hz)
        return 10 * torch.log10(energy.clamp_min(_FLOOR))[None]

    def suspicion(self, rows: Array) -> Array:
        """Return the energy of each row, (n,); attacks have more of it."""
        return np.asarray(rows[:, 0])
