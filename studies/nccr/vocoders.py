"""Resynthesise speech from magnitudes alone with Griffin–Lim vocoders, which need no training.

The phase is estimated again, so perturbations of phase and fine structure do not survive. Wu et al.
(ICASSP 2022) use a neural vocoder on a mel spectrogram and compare it with Griffin–Lim. Both
vocoders here are Griffin–Lim: one from linear magnitudes, one from a mel spectrogram, which is the
input of a neural vocoder. Unlike a neural vocoder they have not learned speech, so more of the
voice is lost and the scores of clean speech change more.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import librosa
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.errors import InputError

__all__ = ["GriffinLim", "MelInversion"]

Samples = NDArray[np.float32]


class GriffinLim:
    """Keep the magnitudes and estimate the phases (Griffin & Lim 1984; Perraudin et al. 2013).

    Frames last 50 ms and start every 12.5 ms. The initial phases are random.

    Args:
        sample_rate_hz: Sample rate of the waveforms.
        rounds: Number of iterations.
        bounds: Range that the samples are clipped to.

    Raises:
        InputError: If a setting is invalid.
    """

    def __init__(self, *, sample_rate_hz: int, rounds: int = 16, bounds: Bounds) -> None:
        """Check and keep the settings."""
        if rounds < 1 or sample_rate_hz < 1000:
            raise InputError(
                f"rounds is {rounds} and the sample rate {sample_rate_hz} Hz, expected rounds "
                "≥ 1 and a "
                "rate ≥ 1000 Hz"
            )
        self.sample_rate_hz = sample_rate_hz
        self.rounds = rounds
        self.bounds = bounds

    @property
    def name(self) -> str:
        """Name in tables."""
        return "Griffin–Lim"

    def settings(self) -> dict[str, Any]:
        """Return the settings that the result depends on."""
        return {
            "name": "griffin-lim",
            "sample_rate_hz": self.sample_rate_hz,
            "rounds": self.rounds,
        }

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Resynthesise each item of a batch.

        Args:
            batch: Waveforms (B, N).
            generator: Random generator of the initial phases.

        Returns:
            Waveforms of the same shape; padding is zero.

        Raises:
            InputError: If the input is not (B, N).
        """
        if batch.x.dim() != 2:
            raise InputError(
                f"input is {tuple(batch.x.shape)}, expected waveforms (items, samples); pass raw "
                "input"
            )
        x = torch.zeros_like(batch.x)
        for index in range(len(batch)):
            item = batch.item(index).x[0]
            x[index, : len(item)] = self._resynthesise(item, generator)
        return batch.with_x(x)

    def _resynthesise(self, item: Tensor, generator: torch.Generator) -> Tensor:
        samples = item.detach().cpu().numpy().astype(np.float32)
        seed = int(torch.randint(2**31, (1,), generator=generator))
        # padded here, since librosa warns about a frame that is longer than the recording
        filled = np.pad(samples, (0, max(0, self._size - len(samples))))
        size, hop, frame = self._size, self._hop, self._frame
        spectrum = librosa.stft(filled, n_fft=size, hop_length=hop, win_length=frame)
        made = librosa.griffinlim(
            self._magnitudes(np.abs(spectrum)),
            n_iter=self.rounds,
            n_fft=size,
            hop_length=hop,
            win_length=frame,
            length=len(filled),
            random_state=seed,
        )
        return self.bounds.clip(torch.from_numpy(made[: len(samples)]).to(item))

    def _magnitudes(self, spectrum: Samples) -> Samples:
        """Return the magnitudes (F, T) to invert."""
        return spectrum

    @property
    def _frame(self) -> int:
        return round(0.05 * self.sample_rate_hz)

    @property
    def _hop(self) -> int:
        return round(0.0125 * self.sample_rate_hz)

    @property
    def _size(self) -> int:
        return 1 << (self._frame - 1).bit_length()


class MelInversion(GriffinLim):
    """Invert a mel spectrogram, which is the input of a neural vocoder, with Griffin–Lim.

    The pseudo-inverse of the mel filters turns mel magnitudes into linear ones; negative values are
    set to zero.

    Args:
        sample_rate_hz: Sample rate of the waveforms.
        bands: Number of mel bands.
        rounds: Number of iterations of Griffin–Lim.
        bounds: Range that the samples are clipped to.

    Raises:
        InputError: If a setting is invalid.
    """

    def __init__(
        self, *, sample_rate_hz: int, bands: int = 80, rounds: int = 16, bounds: Bounds
    ) -> None:
        """Check and keep the settings."""
        super().__init__(sample_rate_hz=sample_rate_hz, rounds=rounds, bounds=bounds)
        if not 2 <= bands <= self._size // 4:
            raise InputError(f"bands is {bands}, expected 2 to {self._size // 4}; 80 is usual")
        self.bands = bands

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"mel inversion, {self.bands} bands"

    def settings(self) -> dict[str, Any]:
        """Return the settings that the result depends on."""
        return {**super().settings(), "name": "mel-inversion", "bands": self.bands}

    def _magnitudes(self, spectrum: Samples) -> Samples:
        filters, back = _mel_and_back(self.sample_rate_hz, self._size, self.bands)
        return np.asarray(np.maximum(back @ (filters @ spectrum), 0))


@lru_cache(maxsize=8)
def _mel_and_back(sample_rate_hz: int, size: int, bands: int) -> tuple[Samples, Samples]:
    filters = librosa.filters.mel(sr=sample_rate_hz, n_fft=size, n_mels=bands)
    return filters, np.linalg.pinv(filters)
