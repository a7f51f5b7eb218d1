"""Equalise waveforms at random, to imitate microphones and rooms that a small corpus lacks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nip_audio.errors import InputError

__all__ = ["RandomEqualizer"]


class RandomEqualizer(nn.Module):
    """Multiply the spectrum of each item by a smooth random curve of gains.

    Gains in dB are drawn at a few points evenly spaced on a mel-like scale and joined by straight
    lines, so that the curve looks like that of a microphone. The phase is kept. Draws come from the
    global generator, as in SpeechBrain's augmentations.

    Args:
        sample_rate: Sample rate in Hz.
        points: Number of gains drawn.
        gain_db: Standard deviation of the gains in dB.

    Raises:
        InputError: If there are fewer than two points, or the deviation is not positive.

    Example:
        >>> RandomEqualizer()(torch.rand(2, 16000)).shape
        torch.Size([2, 16000])
    """

    def __init__(self, sample_rate: int = 16000, *, points: int = 8, gain_db: float = 4.0) -> None:
        """Check and keep the settings."""
        super().__init__()
        if points < 2 or not gain_db > 0:
            raise InputError(
                f"got {points} points and {gain_db} dB, expected at least 2 points and more than 0"
            )
        self.sample_rate = sample_rate
        self.points = points
        self.gain_db = gain_db

    def forward(self, waveforms: Tensor) -> Tensor:
        """Equalise waveforms (B, N); each keeps its rms."""
        spectrum = torch.fft.rfft(waveforms)
        hz = torch.linspace(0.0, self.sample_rate / 2, spectrum.shape[1], device=waveforms.device)
        mel = torch.log1p(hz / 700.0)
        place = mel / mel[-1] * (self.points - 1)
        left = place.floor().long().clamp_max(self.points - 2)
        share = place - left
        draws = torch.randn(len(waveforms), self.points, device=waveforms.device) * self.gain_db
        decibels = draws[:, left] * (1 - share) + draws[:, left + 1] * share
        equalised = torch.fft.irfft(spectrum * 10 ** (decibels / 20), n=waveforms.shape[1])
        before, after = (x.square().mean(dim=1, keepdim=True) for x in (waveforms, equalised))
        scaled: Tensor = equalised * (before / after.clamp_min(1e-20)).sqrt()
        return scaled
