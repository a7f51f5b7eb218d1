"""Turn waveforms into normalised log-mel spectrograms, inside the autograd graph."""

from __future__ import annotations

import torch
from speechbrain.lobes.features import Fbank
from torch import Tensor, nn

from nip_audio.audio.front_ends import Framing
from nip_audio.core.adapter import length_mask
from nip_audio.errors import InputError

__all__ = ["LogMel"]


class LogMel(nn.Module):
    """Log-mel front end: SpeechBrain's ``Fbank`` in decibels, mapped to [0, 1] and clipped.

    ``low_db`` and ``high_db`` are fixed, not fitted to each file, so that a perturbation of the
    spectrogram has the same size in every file and in every model with these constants. Padding has
    no effect: it is zeroed before the short-time Fourier transform (STFT), and frames beyond
    ``1 + samples // hop`` are zeroed after it.

    Args:
        sample_rate_hz: Sample rate of the waveforms.
        n_mels: Number F of mel bands.
        low_db: Level that is mapped to 0.
        high_db: Level that is mapped to 1.
        win_length_ms: Length of the analysis window.
        hop_length_ms: Step between frames.

    Raises:
        InputError: If ``high_db`` is not above ``low_db``.

    Example:
        >>> features, frames = LogMel()(torch.zeros(2, 16000), torch.tensor([16000, 8000]))
        >>> tuple(features.shape), frames.tolist()
        ((2, 40, 101), [101, 51])
    """

    def __init__(
        self,
        sample_rate_hz: int = 16000,
        *,
        n_mels: int = 40,
        low_db: float = -60.0,
        high_db: float = 40.0,
        win_length_ms: float = 25.0,
        hop_length_ms: float = 10.0,
    ) -> None:
        """Create the filter bank."""
        super().__init__()
        if not high_db > low_db:
            raise InputError(f"high_db is {high_db}, expected a level above low_db = {low_db}")
        self.sample_rate_hz = sample_rate_hz
        self.n_mels = n_mels
        self.low_db = low_db
        self.high_db = high_db
        self.hop_samples = round(sample_rate_hz * hop_length_ms / 1000)
        self.fbank = Fbank(
            sample_rate=sample_rate_hz,
            n_fft=round(sample_rate_hz * win_length_ms / 1000),
            n_mels=n_mels,
            win_length=win_length_ms,
            hop_length=hop_length_ms,
        )

    @property
    def framing(self) -> Framing:
        """Frames and bands."""
        analysis = self.fbank.compute_STFT
        return Framing(
            analysis.n_fft,
            self.hop_samples,
            analysis.window,
            0,
            self.fbank.compute_fbanks.f_central,
            self.high_db - self.low_db,
            analysis.pad_mode,
        )

    def frames(self, samples: Tensor) -> Tensor:
        """Return the number of frames of (B,) numbers of samples."""
        return 1 + torch.div(samples, self.hop_samples, rounding_mode="floor")

    def forward(self, wavs: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute the spectrograms of a batch.

        Args:
            wavs: (B, N) floating waveforms in [-1, 1].
            lengths: (B,) number of valid samples; None means all N.

        Returns:
            Spectrograms (B, F, T) in [0, 1], zero beyond the valid frames, and the number of valid
            frames (B,).

        Raises:
            InputError: If ``wavs`` is not (B, N) with N ≥ 1.
        """
        if wavs.dim() != 2 or wavs.shape[1] == 0:
            raise InputError(
                f"waveforms have shape {tuple(wavs.shape)}, expected (batch, samples ≥ 1)"
            )
        if lengths is None:
            lengths = torch.full((wavs.shape[0],), wavs.shape[1], device=wavs.device)
        wavs = wavs * length_mask(lengths, wavs.shape[1])
        decibels = self.fbank(wavs).transpose(1, 2)
        features = ((decibels - self.low_db) / (self.high_db - self.low_db)).clamp(0.0, 1.0)
        frames = self.frames(lengths)
        return features * length_mask(frames, features.shape[2])[:, None, :], frames
