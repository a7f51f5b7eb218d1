"""Vocoders that need no download: sound from magnitudes alone, its phase made up anew.

What an attacker has put into phases and fine structure does not survive. Wu et al. (ICASSP 2022)
resynthesise with a neural vocoder from a mel spectrogram, and have Griffin–Lim stand beside it.
Both of these here are Griffin–Lim: one from the linear magnitudes, one from a mel spectrogram, that
is, from what a neural vocoder would be given. They differ from the published one in what they have
learned, which is nothing: no speech is expected, so that more of the voice is lost, and scores of
clean speech change more.
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
    """Keep magnitudes, make phases up (Griffin & Lim 1984; Perraudin et al. 2013).

    Frames of 50 ms, every 12.5 ms. The first phases are random, out of the generator.

    Args:
        sample_rate_hz: Rate of the waveforms.
        rounds: Iterations.
        bounds: Range that samples are clipped to.

    Raises:
        InputError: If a setting makes no sense.
    """

    def __init__(self, *, sample_rate_hz: int, rounds: int = 16, bounds: Bounds) -> None:
        """See the class."""
        if rounds < 1 or sample_rate_hz < 1000:
            raise InputError(
                f"rounds is {rounds} and sample rate {sample_rate_hz} Hz, expected ≥ 1 and ≥ 1000"
            )
        self.sample_rate_hz = sample_rate_hz
        self.rounds = rounds
        self.bounds = bounds

    @property
    def name(self) -> str:
        """As tables call it."""
        return "Griffin–Lim"

    def settings(self) -> dict[str, Any]:
        """Return rate and rounds."""
        return {
            "name": "griffin-lim",
            "sample_rate_hz": self.sample_rate_hz,
            "rounds": self.rounds,
        }

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Resynthesise, item by item; what was longer in the batch stays padded with zeros.

        Raises:
            InputError: If the input is not (B, N).
        """
        if batch.x.dim() != 2:
            raise InputError(
                f"input is {tuple(batch.x.shape)}, expected waveforms (items, samples); give raw "
                "input"
            )
        x = torch.zeros_like(batch.x)
        for index in range(len(batch)):
            item = batch.item(index).x[0]
            x[index, : len(item)] = self._made_anew(item, generator)
        return batch.with_x(x)

    def _made_anew(self, item: Tensor, generator: torch.Generator) -> Tensor:
        samples = item.detach().cpu().numpy().astype(np.float32)
        seed = int(torch.randint(2**31, (1,), generator=generator))
        # a frame longer than the recording would be filled with zeros, and said to be too long
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
        """Return what is left of (F, T) magnitudes."""
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
    """Keep a mel spectrogram only, as a neural vocoder is given it, and go back from there.

    Magnitudes in mel bands, turned into linear ones by the pseudo-inverse of the filters (below
    zero is zero), then Griffin–Lim.

    Args:
        sample_rate_hz: Rate of the waveforms.
        bands: Of the mel spectrogram.
        rounds: Iterations of Griffin–Lim.
        bounds: Range that samples are clipped to.
    """

    def __init__(
        self, *, sample_rate_hz: int, bands: int = 80, rounds: int = 16, bounds: Bounds
    ) -> None:
        """See the class."""
        super().__init__(sample_rate_hz=sample_rate_hz, rounds=rounds, bounds=bounds)
        if not 2 <= bands <= self._size // 4:
            raise InputError(f"bands is {bands}, expected 2 to {self._size // 4}; 80 is usual")
        self.bands = bands

    @property
    def name(self) -> str:
        """As tables call it."""
        return f"mel inversion, {self.bands} bands"

    def settings(self) -> dict[str, Any]:
        """Return rate, bands and rounds."""
        return {**super().settings(), "name": "mel-inversion", "bands": self.bands}

    def _magnitudes(self, spectrum: Samples) -> Samples:
        filters, back = _mel_and_back(self.sample_rate_hz, self._size, self.bands)
        return np.asarray(np.maximum(back @ (filters @ spectrum), 0))


@lru_cache(maxsize=8)
def _mel_and_back(sample_rate_hz: int, size: int, bands: int) -> tuple[Samples, Samples]:
    filters = librosa.filters.mel(sr=sample_rate_hz, n_fft=size, n_mels=bands)
    return filters, np.linalg.pinv(filters)
