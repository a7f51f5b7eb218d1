"""Kaldi's filter-bank features, differentiable and in batches, as a bounded spectrogram.

WeSpeaker, pyannote.audio and 3D-Speaker train on the natural logarithm of these features with the
mean of each band removed. The front end gives decibels mapped to [0, 1], and ``KaldiFeatures``,
with which such a network begins, maps them back.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nip_audio.audio.front_ends import BandFrontEnd, BandRange, Framing
from nip_audio.core.adapter import masked_mean
from nip_audio.errors import InputError
from nip_audio.models._masking import Masks

__all__ = ["WINDOWS", "KaldiFbank", "KaldiFeatures"]

_MOST_BANDS, _LONGEST_FRAME, _MOST_OVERLAP = 1000, 1 << 16, 100
WINDOWS = ("hamming", "povey")
"""Analysis windows that speaker models use."""

LOWEST_HZ = 20.0
PREEMPHASIS = 0.97
FLOOR = float(torch.finfo(torch.float32).eps)
"""Power that stands for silence, as in Kaldi."""


class KaldiFbank(BandFrontEnd):
    """Kaldi's ``compute-fbank-feats`` without dither: (B, N) waveforms → (B, F, T) levels.

    Each whole frame has its mean removed, is pre-emphasised (0.97) and windowed, and its power
    spectrum is summed in triangular mel bands from 20 Hz to half the sample rate. The range of
    decibels reaches from Kaldi's floor to what no waveform in [-1, 1] exceeds, so nothing is ever
    clipped.

    Args:
        sample_rate_hz: Sample rate of the waveforms.
        bands: Number F of mel bands.
        window: A name of ``WINDOWS``.
        frame_length_ms: Length of a frame.
        frame_shift_ms: Step between frames.
        scale: Factor on the waveform first: 32768 for models trained on 16-bit integers.

    Raises:
        InputError: If the window has no such name, or a number is out of range.

    Example:
        >>> features, frames = KaldiFbank()(torch.zeros(2, 16000), torch.tensor([16000, 8000]))
        >>> tuple(features.shape), frames.tolist()
        ((2, 80, 98), [98, 48])
    """

    window: Tensor
    filters: Tensor
    band_centres_hz: Tensor

    def __init__(
        self,
        sample_rate_hz: int = 16000,
        *,
        bands: int = 80,
        window: str = "hamming",
        frame_length_ms: float = 25.0,
        frame_shift_ms: float = 10.0,
        scale: float = 32768.0,
    ) -> None:
        size = int(sample_rate_hz * frame_length_ms / 1000)
        hop = int(sample_rate_hz * frame_shift_ms / 1000)
        _check(bands, window, size, hop, scale)
        n_fft = 2 ** math.ceil(math.log2(size))
        filters, centres = _mel_filters(bands, n_fft, sample_rate_hz)
        shape = _window(window, size)
        # a waveform in [-1, 1] is at most 1.97 after pre-emphasis once its mean, at most 1, is off
        loudest = scale * 2 * (1 + PREEMPHASIS) * float(shape.sum())
        high = 20 * math.log10(loudest) + 10 * math.log10(float(filters.sum(dim=1).max()))
        super().__init__(sample_rate_hz, BandRange(10 * math.log10(FLOOR), high))
        self.register_buffer("window", shape.float(), persistent=False)
        self.register_buffer("filters", filters.float(), persistent=False)
        self.register_buffer("band_centres_hz", centres.float(), persistent=False)
        self.bands = bands
        self.n_fft = n_fft
        self.hop_samples = hop
        self.scale = scale

    @property
    def framing(self) -> Framing:
        """Frames and bands."""
        return Framing(
            self.n_fft,
            self.hop_samples,
            self.window,
            len(self.window) // 2,
            self.band_centres_hz,
            self.band_range.width_db,
        )

    def frames(self, samples: Tensor) -> Tensor:
        """Return the number of whole frames of (B,) numbers of samples."""
        whole = samples - len(self.window)
        return 1 + torch.div(whole, self.hop_samples, rounding_mode="floor")

    def decibels(self, wavs: Tensor, lengths: Tensor) -> Tensor:  # noqa: ARG002
        """Return the power of the bands (B, F, T) in decibels."""
        frames = (wavs * self.scale).unfold(1, len(self.window), self.hop_samples)
        frames = frames - frames.mean(dim=2, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
        frames = (frames - PREEMPHASIS * before) * self.window.to(wavs)
        spectrum = torch.fft.rfft(frames, n=self.n_fft)
        power = (spectrum.real.square() + spectrum.imag.square()) @ self.filters.to(wavs).T
        return 10 * torch.log10(power.clamp_min(FLOOR)).transpose(1, 2)


class KaldiFeatures(nn.Module):
    """Map levels in [0, 1] back to what networks are trained on: (B, F, T) → (B, F, T).

    The result is the natural logarithm of the power with the mean of each band over the valid
    frames removed; padding is zero.

    Args:
        band_range: Range of the front end.
        subtract_mean: Whether the mean of each band is removed.
    """

    def __init__(self, band_range: BandRange, *, subtract_mean: bool = True) -> None:
        super().__init__()
        self.band_range = band_range
        self.subtract_mean = subtract_mean

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the features of levels.

        Args:
            x: (B, F, T) levels in [0, 1].
            lengths: (B,) valid frames; None means all T.
        """
        features = self.band_range.to_decibels(x) * (math.log(10) / 10)
        masks = Masks(lengths, x.shape[2])
        if self.subtract_mean:
            features = features - masked_mean(features[:, :, None], masks.lengths)[..., None]
        return masks(features)


def _check(bands: int, window: str, size: int, hop: int, scale: float) -> None:
    if window not in WINDOWS:
        raise InputError(f"window is {window!r}, expected one of {', '.join(WINDOWS)}")
    if bands > _MOST_BANDS or size > _LONGEST_FRAME or hop * _MOST_OVERLAP < size:
        raise InputError(
            f"got {bands} bands, frames of {size} samples and a step of {hop}, expected at most "
            f"{_MOST_BANDS} bands, {_LONGEST_FRAME} samples and a step of a {_MOST_OVERLAP}th of "
            "them; no speech needs more"
        )
    if bands < 4 or size < 2 or hop < 1 or not 0 < scale < math.inf:
        raise InputError(
            f"got {bands} bands, frames of {size} samples, a step of {hop} and a scale of {scale}, "
            "expected at least 4 bands, 2 samples, a step of 1 and a positive scale"
        )


def _window(name: str, size: int) -> Tensor:
    if name == "hamming":
        return torch.hamming_window(size, False, 0.54, 0.46, dtype=torch.float64)
    return torch.hann_window(size, False, dtype=torch.float64).pow(0.85)


def _mel_filters(bands: int, n_fft: int, sample_rate_hz: int) -> tuple[Tensor, Tensor]:
    """Return Kaldi's triangles (F, n_fft // 2 + 1) over mel, and their centres (F,) in hertz.

    They are computed in 32 bits, in Kaldi's order: in 64 bits they would be more exact, and
    features would differ from those of training by up to 2e-4.
    """
    low, high = (1127 * math.log1p(hz / 700) for hz in (LOWEST_HZ, sample_rate_hz / 2))
    step, band = (high - low) / (bands + 1), torch.arange(bands)[:, None]
    left, centre, right = (low + (band + k) * step for k in (0.0, 1.0, 2.0))
    at = 1127.0 * (1.0 + (sample_rate_hz / n_fft) * torch.arange(n_fft // 2 + 0.0) / 700.0).log()
    up, down = (at - left) / (centre - left), (right - at) / (right - centre)
    filters = torch.minimum(up, down).clamp_min(0.0)
    # Kaldi leaves out half the sample rate
    return nn.functional.pad(filters, (0, 1)), 700 * torch.expm1(centre[:, 0] / 1127)
