"""Change recordings harmlessly, to see whether a defence mistakes such changes for an attack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, sosfiltfilt
from torch import Tensor

from nip_audio.core.seeds import seed_of
from nip_audio.evaluation.systems import Item
from nip_audio.purifiers.codec import CodecName, through_codec

__all__ = ["CONTROLS", "Control", "changed_clips"]

Samples = NDArray[np.float64]

_Change = Callable[[Samples, int, np.random.Generator], Samples]


@dataclass(frozen=True)
class Control:
    """A harmless change.

    Attributes:
        name: Name of the change in tables.
        change: Function of (N,) samples, the rate in hertz and a random generator that returns
            about N changed samples.
    """

    name: str
    change: _Change

    def apply(self, clip: Tensor, *, sample_rate_hz: int, seed: int) -> Tensor:
        """Change a clip.

        Args:
            clip: (N,) samples in [-1, 1].
            sample_rate_hz: Sample rate of the clip.
            seed: Seed of the change's random draws.

        Returns:
            (N,) samples in [-1, 1].
        """
        rng = np.random.default_rng(seed)
        changed = self.change(clip.double().numpy(), sample_rate_hz, rng)
        out = np.zeros(len(clip))
        size = min(len(out), len(changed))
        out[:size] = changed[:size]
        return torch.from_numpy(out.clip(-1, 1)).to(clip.dtype)


def changed_clips(
    control: Control, items: Sequence[Item], *, sample_rate_hz: int, seed: int
) -> list[Tensor]:
    """Change clips; each has its own random draws, which depend on seed, change and clip."""
    return [
        control.apply(
            item.samples,
            sample_rate_hz=sample_rate_hz,
            seed=seed_of(seed, control.name, item.id),
        )
        for item in items
    ]


def _codec(codec: CodecName) -> _Change:
    def change(clip: Samples, rate: int, rng: np.random.Generator) -> Samples:
        coded = through_codec(clip.astype(np.float32), codec, sample_rate_hz=rate)
        return coded.astype(np.float64)

    return change


def _noise(snr_db: float) -> _Change:
    def change(clip: Samples, rate: int, rng: np.random.Generator) -> Samples:
        rms = np.sqrt(np.mean(clip**2)) * 10 ** (-snr_db / 20)
        noisy: Samples = clip + rms * rng.standard_normal(len(clip))
        return noisy

    return change


def _reverb(clip: Samples, rate: int, rng: np.random.Generator) -> Samples:
    """Add the reverberation of a room (RT60 0.4 s, direct sound 6 dB above it); keep the rms."""
    time_s = np.arange(int(0.4 * rate)) / rate
    tail = rng.standard_normal(time_s.size) * 10 ** (-3 * time_s / 0.4)
    tail *= 0.5 / np.linalg.norm(tail)
    tail[0] = 1.0
    wet: Samples = fftconvolve(clip, tail)[: len(clip)]
    loudness = np.linalg.norm(clip) / max(float(np.linalg.norm(wet)), 1e-12)
    return np.asarray(wet * loudness)


def _gain(gain_db: float) -> _Change:
    return lambda clip, rate, rng: np.asarray(clip * 10 ** (gain_db / 20))


def _resampled(rate_hz: int) -> _Change:
    def change(clip: Samples, rate: int, rng: np.random.Generator) -> Samples:
        return np.asarray(soxr.resample(soxr.resample(clip, rate, rate_hz), rate_hz, rate))

    return change


def _telephone(clip: Samples, rate: int, rng: np.random.Generator) -> Samples:
    band = butter(4, [300, 3400], btype="bandpass", fs=rate, output="sos")
    return np.asarray(sosfiltfilt(band, clip))


def _shifted(seconds: float) -> _Change:
    return lambda clip, rate, rng: np.roll(clip, round(seconds * rate))


def _faster(factor: float) -> _Change:
    """Speed up like a tape, so that pitch and formants move too."""
    return lambda clip, rate, rng: np.asarray(soxr.resample(clip, rate * factor, rate))


CONTROLS: tuple[Control, ...] = (
    Control("unchanged", lambda clip, rate, rng: clip),
    Control("MP3", _codec("mp3")),
    Control("Ogg Vorbis", _codec("vorbis")),
    Control("Ogg Opus", _codec("opus")),
    Control("white noise, 30 dB SNR", _noise(30)),
    Control("white noise, 20 dB SNR", _noise(20)),
    Control("reverberation", _reverb),
    Control("10 dB quieter", _gain(-10)),
    Control("8 kHz and back", _resampled(8000)),
    Control("telephone band", _telephone),
    Control("0.1 s later", _shifted(0.1)),
    Control("3 % faster", _faster(1.03)),
)
