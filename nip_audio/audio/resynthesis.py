"""Turn a changed log-mel spectrogram back into sound, with the phase of the original.

A log-mel spectrogram alone cannot be inverted: it has no phase, and each mel band sums many
frequencies. Its *change*, however, is a gain per band and frame, which can be applied to the
short-time spectrum of the original waveform.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nip_audio.audio.front_ends import ComplexSpectrogram, Framing, SpectralFrontEnd
from nip_audio.errors import InputError

__all__ = [
    "LARGEST_GAIN_DB",
    "ROUNDS",
    "Resynthesis",
    "can_resynthesize",
    "resynthesize",
]

LARGEST_GAIN_DB = 40.0
"""Largest gain of any band, up or down. Levels below the front end's range, or more than 80 dB
below the loudest band, are clipped to the end of the range, so their real level is unknown; raising
them without limit would amplify rounding errors into noise."""

ROUNDS = 10
"""Corrections after the first gain. Without them the sound differs too much from the spectrogram:
of 42 attacked clips, a median filter on the spectrogram restored the speaker in 19. In the sound it
was 1 without corrections, 11 after three, 20 after ten and 23 after thirty."""


@dataclass(frozen=True)
class Resynthesis:
    """Sound made from a changed spectrogram, and how close its spectrogram is to the target.

    Attributes:
        samples: (N,) waveform in [-1, 1].
        spectrogram: (F, T) spectrogram of ``samples``.
        residuals: Mean absolute difference to the target spectrogram, in its units: at the start,
            after the first gain, and after each correction.
    """

    samples: Tensor
    spectrogram: Tensor
    residuals: tuple[float, ...]


def can_resynthesize(front_end: object) -> bool:
    """Tell whether changed input of a front end can be turned back into sound."""
    return isinstance(front_end, SpectralFrontEnd | ComplexSpectrogram)


@torch.no_grad()
def resynthesize(
    wav: Tensor,
    before: Tensor,
    after: Tensor,
    front_end: object,
    *,
    rounds: int = ROUNDS,
) -> Resynthesis:
    """Apply the change of a spectrogram to the waveform that it was computed from.

    The change in decibels is the gain at the centre of each band; between centres it is
    interpolated linearly in mel, beyond the outer two it is constant. The short-time spectrum of
    ``wav`` is multiplied by the gain, its phase is kept, and the inverse transform adds up the
    overlapping frames.

    The gain of one band or frame also affects its neighbours, so the result's spectrogram differs
    from the target. Each round adds the remaining difference to the gain; the best result is
    returned, so more rounds are never worse. Gains are limited to ``LARGEST_GAIN_DB``, samples to
    full scale. A complex spectrum is inverted instead, in one step.

    Args:
        wav: (N,) floating waveform in [-1, 1], at the front end's sample rate.
        before: (F, T) spectrogram of ``wav`` in [0, 1]; (2, F, T) of a complex spectrum.
        after: Target of the same shape, in [0, 1].
        front_end: Front end that computed ``before``; its window and step are used.
        rounds: Number of corrections after the first gain.

    Returns:
        The result, with the dtype and device of ``wav``; ``wav`` itself if nothing changes.

    Raises:
        InputError: If the shapes do not fit, values are not finite, ``rounds`` is negative, or the
            front end is of another kind.

    Example:
        >>> from nip_audio.audio.features import LogMel
        >>> noise = torch.rand(8000, generator=torch.Generator().manual_seed(0))
        >>> front_end, wav = LogMel(), 0.2 * noise - 0.1
        >>> before = front_end(wav[None])[0][0]
        >>> target = before + 0.06  # 6 of the range's 100 dB
        >>> louder = resynthesize(wav, before, target, front_end).samples
        >>> round(float(20 * torch.log10(louder.norm() / wav.norm())), 1)
        6.0
    """
    _check(wav, before, after, rounds)
    if not isinstance(front_end, SpectralFrontEnd | ComplexSpectrogram):
        raise InputError(
            f"the front end is {type(front_end).__name__}, expected one of spectrograms; other "
            "input cannot be converted back to a waveform"
        )
    _check_shapes(wav, before, after, front_end)
    start = float((after - before).abs().mean())
    if start == 0:
        return Resynthesis(wav, before, (0.0,))
    if isinstance(front_end, ComplexSpectrogram):
        return _inverted(wav, after, front_end, start)
    synthesis = _Synthesis(wav.float(), front_end.framing, front_end.sample_rate_hz)
    target = after.to(synthesis.spectrum.device, torch.float32)
    gain_db = torch.zeros_like(target)
    best, spectrogram, missing = wav, before, target - before.to(target)
    residuals = [start]
    for _ in range(1 + rounds):
        step_db = missing * front_end.framing.range_db
        gain_db = (gain_db + step_db).clamp(-LARGEST_GAIN_DB, LARGEST_GAIN_DB)
        samples = synthesis.samples(gain_db)
        got = front_end(samples[None])[0][0]
        missing = target - got
        residual = float(missing.abs().mean())
        if residual < residuals[-1]:
            best, spectrogram = samples.to(wav.dtype), got.to(before.dtype)
        residuals.append(min(residual, residuals[-1]))
    return Resynthesis(best, spectrogram, tuple(residuals))


def _inverted(
    wav: Tensor, after: Tensor, front_end: ComplexSpectrogram, start: float
) -> Resynthesis:
    """Invert a changed complex spectrum."""
    samples = front_end.inverse(after[None].float())[0, : wav.shape[0]].clamp(-1.0, 1.0)
    got = front_end(samples[None])[0][0]
    residual = float((after.to(got) - got).abs().mean())
    return Resynthesis(samples.to(wav.dtype), got.to(after.dtype), (start, residual))


class _Synthesis:
    """Short-time spectrum of one recording, and its inverse transform with gains applied."""

    def __init__(self, wav: Tensor, frames: Framing, sample_rate_hz: int) -> None:
        self.size = wav.shape[0]
        self.window = frames.window.to(wav)
        self.framing: dict[str, Any] = {
            "n_fft": frames.n_fft,
            "hop_length": frames.hop_samples,
            "win_length": len(frames.window),
        }
        # Frames of the transform below are centred at multiples of the step. Silence before the
        # waveform moves them to the centres of the front end's own, of which the first then is the
        # frame number ``before``.
        self.before = math.ceil(frames.first_centre / frames.hop_samples)
        self.silence = self.before * frames.hop_samples - frames.first_centre
        self.spectrum = torch.stft(
            torch.nn.functional.pad(wav, (self.silence, 0)) if self.silence else wav,
            **self.framing,
            window=self.window,
            center=True,
            pad_mode=frames.pad_mode,
            return_complex=True,
        )
        bins = self.spectrum.shape[0]
        self.weights = _between_bands(frames.band_centres_hz, bins, sample_rate_hz).to(wav)

    def samples(self, gain_db: Tensor) -> Tensor:
        """Return the waveform (N,), clipped to full scale, for gains (F, T) in decibels."""
        if gain_db.shape[1] != self.spectrum.shape[1]:  # the ends have the gain of their neighbour
            places = torch.arange(self.spectrum.shape[1], device=gain_db.device) - self.before
            gain_db = gain_db[:, places.clamp(0, gain_db.shape[1] - 1)]
        gain = 10 ** (self.weights @ gain_db / 20)
        samples: Tensor = torch.istft(
            self.spectrum * gain,
            **self.framing,
            window=self.window,
            length=self.silence + self.size,
        )
        return samples[self.silence :].clamp(-1.0, 1.0)


def _between_bands(centres_hz: Tensor, bins: int, sample_rate_hz: int) -> Tensor:
    """Return (bins, F) weights that interpolate from band centres to the bins of a spectrum."""
    mel = _mel(centres_hz.detach().double().cpu())
    at = _mel(torch.linspace(0, sample_rate_hz / 2, bins, dtype=torch.float64))
    at = at.clamp(float(mel[0]), float(mel[-1]))
    if len(mel) == 1:
        return torch.ones(bins, 1, dtype=torch.float64)
    left = (torch.searchsorted(mel, at, right=True) - 1).clamp(0, len(mel) - 2)
    share = (at - mel[left]) / (mel[left + 1] - mel[left])
    weights = torch.zeros(bins, len(mel), dtype=torch.float64)
    rows = torch.arange(bins)
    weights[rows, left] = 1 - share
    weights[rows, left + 1] = share
    return weights


def _mel(hz: Tensor) -> Tensor:
    return torch.log1p(hz / 700) * (2595 / math.log(10))


def _check(wav: Tensor, before: Tensor, after: Tensor, rounds: int) -> None:
    if wav.dim() != 1 or wav.numel() == 0 or not wav.is_floating_point():
        raise InputError(
            f"wav is {tuple(wav.shape)} of {wav.dtype}, expected floating (samples ≥ 1,); pass one "
            "recording at a time"
        )
    if not all(bool(t.isfinite().all()) for t in (wav, before, after)):
        raise InputError("got values that are NaN or infinite, expected finite ones; purify again")
    if rounds < 0:
        raise InputError(f"rounds is {rounds}, expected 0 or more; {ROUNDS} is usual")


def _check_shapes(
    wav: Tensor, before: Tensor, after: Tensor, front_end: SpectralFrontEnd | ComplexSpectrogram
) -> None:
    expected: tuple[int, ...]
    if isinstance(front_end, ComplexSpectrogram):
        frames = 1 + math.ceil(wav.shape[0] / front_end.hop_samples)
        expected = (2, front_end.n_fft // 2 + 1, frames)
    else:
        frames = int(front_end.frames(torch.tensor([wav.shape[0]])))
        expected = (len(front_end.framing.band_centres_hz), frames)
    if before.shape != expected or after.shape != expected:
        raise InputError(
            f"spectrograms are {tuple(before.shape)} and {tuple(after.shape)}, expected {expected} "
            f"for {wav.shape[0]} samples; compute them from this recording with this front end"
        )
