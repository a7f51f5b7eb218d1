"""Change recordings harmlessly: noise, rooms, codecs, telephones and levels, as strangers bring.

Every function takes (N,) samples of float64 and returns samples that may leave [-1, 1] a little;
``Change.apply`` clips and keeps the length. audiomentations has such changes as well, but draws
from random generators of the whole process, so that a calibration could not be repeated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, sosfiltfilt
from torch import Tensor

from nip_audio.purifiers.codec import CodecName, through_codec

__all__ = [
    "CHANGES",
    "TELEPHONE_HZ",
    "Change",
    "Kind",
    "Samples",
    "add_noise",
    "as_clip",
    "change_gain",
    "code",
    "filter_band",
    "limit_peaks",
    "move_in_time",
    "play_faster",
    "resample_to",
    "reverberate",
    "surround_with_silence",
]

Samples = NDArray[np.float64]

Kind = Literal["level", "noise", "codec", "room", "telephone"]
"""Kinds of harmless conditions: nothing or the level, tempo and band; added noise; lossy codecs,
and purifiers; rooms and other voices; and telephones, which leave nothing above 4 kHz."""

TELEPHONE_HZ = (300.0, 3400.0)
"""Band of a telephone."""

_BABBLE_VOICES = 6


def add_noise(
    clip: Samples,
    rng: np.random.Generator,
    *,
    snr_db: float | None = None,
    largest: float | None = None,
    slope: float = 0.0,
) -> Samples:
    """Add noise of a signal-to-noise ratio, or uniform noise of a largest value.

    Args:
        clip: (N,) samples.
        rng: Source of the noise.
        snr_db: Signal-to-noise ratio of normal noise in decibels.
        largest: Largest absolute value of uniform noise, used instead of ``snr_db``.
        slope: Power of the frequency by which the noise's power falls: 0 white, 1 pink, 2 brown.
    """
    if largest is not None:
        return np.asarray(clip + largest * rng.uniform(-1, 1, len(clip)))
    noise = rng.standard_normal(len(clip))
    if slope:
        spectrum = np.fft.rfft(noise)
        places = np.maximum(np.arange(len(spectrum)), len(spectrum) / 400)  # flat below 20 Hz
        noise = _of_unit_rms(np.fft.irfft(spectrum / places ** (slope / 2), len(clip)))
    return np.asarray(clip + _rms_at(clip, snr_db or 0.0) * noise)


def _rms_at(clip: Samples, snr_db: float) -> float:
    """Return the rms of noise of a signal-to-noise ratio."""
    return float(np.sqrt(np.mean(clip**2)) * 10 ** (-snr_db / 20))


def _of_unit_rms(noise: Samples) -> Samples:
    return np.asarray(noise / max(float(np.sqrt(np.mean(noise**2))), 1e-12))


def _add_babble(clip: Samples, rng: np.random.Generator, *, snr_db: float) -> Samples:
    """Add many voices, made of the clip itself: turned round, moved and at other speeds."""
    voices = np.zeros(len(clip))
    for _ in range(_BABBLE_VOICES):
        voice = soxr.resample(clip[::-1], 1.0, rng.uniform(0.8, 1.25))
        voices += np.roll(np.resize(voice, len(clip)), rng.integers(len(clip)))
    return np.asarray(clip + _rms_at(clip, snr_db) * _of_unit_rms(voices))


def reverberate(
    clip: Samples, rng: np.random.Generator, *, rate_hz: int, rt60_s: float = 0.4
) -> Samples:
    """Add the reverberation of a room, with the direct sound 6 dB above it; keep the rms."""
    time_s = np.arange(int(rt60_s * rate_hz)) / rate_hz
    tail = rng.standard_normal(time_s.size) * 10 ** (-3 * time_s / rt60_s)
    tail *= 0.5 / np.linalg.norm(tail)
    tail[0] = 1.0
    wet: Samples = fftconvolve(clip, tail)[: len(clip)]
    loudness = np.linalg.norm(clip) / max(float(np.linalg.norm(wet)), 1e-12)
    return np.asarray(wet * loudness)


def code(
    clip: Samples, *, codec: CodecName, rate_hz: int, compression_level: float | None = None
) -> Samples:
    """Encode and decode by a codec."""
    coded = through_codec(
        clip.astype(np.float32),
        codec,
        sample_rate_hz=rate_hz,
        compression_level=compression_level,
    )
    return coded.astype(np.float64)


def change_gain(clip: Samples, *, gain_db: float) -> Samples:
    """Change the level."""
    return np.asarray(clip * 10 ** (gain_db / 20))


def resample_to(clip: Samples, *, rate_hz: int, to_hz: int) -> Samples:
    """Resample to another rate and back."""
    return np.asarray(soxr.resample(soxr.resample(clip, rate_hz, to_hz), to_hz, rate_hz))


def filter_band(clip: Samples, *, rate_hz: int, band_hz: tuple[float, float]) -> Samples:
    """Keep the frequencies between two limits; a lower limit of 0 filters nothing below."""
    low, high = band_hz
    edges, kind = ([low, high], "bandpass") if low > 0 else (high, "lowpass")
    return np.asarray(sosfiltfilt(butter(4, edges, btype=kind, fs=rate_hz, output="sos"), clip))


def _telephone(clip: Samples, *, rate_hz: int, codec: CodecName | None = None) -> Samples:
    """Send through a telephone at 8 kHz: its band and, with a codec, what that leaves."""
    narrow = filter_band(clip, rate_hz=rate_hz, band_hz=TELEPHONE_HZ)
    heard = np.asarray(soxr.resample(narrow, rate_hz, 8000))
    if codec is not None:
        heard = code(heard, codec=codec, rate_hz=8000)
    return np.asarray(soxr.resample(heard, 8000, rate_hz))


def limit_peaks(clip: Samples, *, share: float, soft: bool = False) -> Samples:
    """Cut off the given share of the largest samples, or with ``soft`` press them together."""
    limit = max(float(np.quantile(np.abs(clip), 1 - share)), 1e-6)
    if soft:
        return np.asarray(limit * np.tanh(clip / limit))
    return np.asarray(clip.clip(-limit, limit))


def move_in_time(clip: Samples, *, seconds: float, rate_hz: int) -> Samples:
    """Move the clip in a circle."""
    return np.roll(clip, round(seconds * rate_hz))


def play_faster(clip: Samples, *, factor: float) -> Samples:
    """Speed up like a tape, so that pitch and formants move too; the length changes."""
    return np.asarray(soxr.resample(clip, factor, 1.0))


def surround_with_silence(
    clip: Samples, rng: np.random.Generator, *, seconds: float, rate_hz: int, rms: float = 0.0
) -> Samples:
    """Put silence of this many seconds, with hiss of this rms, before and after."""
    count = round(seconds * rate_hz)
    before, after = rms * rng.standard_normal((2, count))
    return np.concatenate([before, clip, after])


def as_clip(changed: Samples, clip: Tensor) -> Tensor:
    """Return changed samples with the length and type of a clip, within [-1, 1]."""
    out = np.zeros(len(clip))
    size = min(len(out), len(changed))
    out[:size] = changed[:size]
    return torch.from_numpy(out.clip(-1, 1)).to(clip.dtype)


@dataclass(frozen=True)
class Change:
    """A harmless change with a strength that can be drawn.

    Attributes:
        title: Name in words; ``{:…}`` is replaced by the strength.
        change: Function of the samples, their rate in hertz, the strength and a random generator.
        strengths: Weakest and strongest; equal where there is nothing to choose.
        logarithmic: Whether strengths are drawn evenly on a logarithmic scale.
        kind: Kind of harmless condition that it makes; a detector's rate holds in each kind.
    """

    title: str
    change: Callable[[Samples, int, float, np.random.Generator], Samples]
    strengths: tuple[float, float] = (0.0, 0.0)
    logarithmic: bool = False
    kind: Kind = "level"

    def draw(self, rng: np.random.Generator) -> float:
        """Draw a strength."""
        low, high = self.strengths
        share = rng.uniform()
        return float(
            low * (high / low) ** share if self.logarithmic else low + share * (high - low)
        )

    def name(self, strength: float) -> str:
        """Name the change with its strength."""
        return self.title.format(strength)

    @property
    def range(self) -> str:
        """Name of the change with its weakest and its strongest strength."""
        low, high = self.strengths
        return re.sub(
            r"{:(.*?)}", lambda found: f"{low:{found[1]}} to {high:{found[1]}}", self.title
        )

    def apply(
        self, clip: Tensor, *, sample_rate_hz: int, strength: float, rng: np.random.Generator
    ) -> Tensor:
        """Change a clip.

        Args:
            clip: (N,) samples in [-1, 1].
            sample_rate_hz: Sample rate of the clip.
            strength: Strength of the change, such as ``draw`` returns.
            rng: Source of the change's random draws.

        Returns:
            (N,) samples in [-1, 1].
        """
        return as_clip(self.change(clip.double().numpy(), sample_rate_hz, strength, rng), clip)


def _at_rate(
    change: Callable[..., Samples], strength: str
) -> Callable[[Samples, int, float, np.random.Generator], Samples]:
    """Return a change that takes the rate and a strength by its name."""
    return lambda clip, rate, value, _: change(clip, rate_hz=rate, **{strength: value})


def _noise(slope: float) -> Change:
    title = {0.0: "white noise", 1.0: "pink noise", 2.0: "rumble"}[slope]
    return Change(
        title + " at {:.0f} dB",
        lambda clip, _, snr_db, rng: add_noise(clip, rng, snr_db=snr_db, slope=slope),
        (5, 45),
        kind="noise",
    )


def _codec(title: str, codec: CodecName) -> Change:
    coded = partial(code, codec=codec)
    change = _at_rate(coded, "compression_level")
    return Change(title + " of level {:.1f}", change, (0.1, 0.9), kind="codec")


def _call(title: str, codec: CodecName | None) -> Change:
    return Change(
        title,
        lambda clip, rate, _, rng: _telephone(clip, rate_hz=rate, codec=codec),
        kind="telephone",
    )


CHANGES: Mapping[str, Change] = {
    "none": Change("as recorded", lambda clip, rate, strength, rng: clip),
    "white": _noise(0.0),
    "pink": _noise(1.0),
    "rumble": _noise(2.0),
    "uniform": Change(
        "uniform noise of ±{:.4f}",
        lambda clip, rate, largest, rng: add_noise(clip, rng, largest=largest),
        (3e-4, 8e-3),
        logarithmic=True,
        kind="noise",
    ),
    "babble": Change(
        "many voices at {:.0f} dB",
        lambda clip, rate, snr_db, rng: _add_babble(clip, rng, snr_db=snr_db),
        (5, 35),
        kind="room",
    ),
    "room": Change(
        "a room of {:.1f} s",
        lambda clip, rate, rt60_s, rng: reverberate(clip, rng, rate_hz=rate, rt60_s=rt60_s),
        (0.15, 0.9),
        kind="room",
    ),
    "mp3": _codec("MP3", "mp3"),
    "vorbis": _codec("Ogg Vorbis", "vorbis"),
    "opus": _codec("Ogg Opus", "opus"),
    "gain": Change(
        "{:+.0f} dB", lambda clip, rate, gain_db, rng: change_gain(clip, gain_db=gain_db), (-26, 12)
    ),
    "clipped": Change(
        "clipping of {:.1%}",
        lambda clip, rate, share, rng: limit_peaks(clip, share=share),
        (0.001, 0.05),
        logarithmic=True,
    ),
    "limiter": Change(
        "a limiter",
        lambda clip, rate, share, rng: limit_peaks(clip, share=share, soft=True),
        (0.01, 0.1),
    ),
    "speed": Change(
        "speed {:.2f}",
        lambda clip, rate, factor, rng: play_faster(clip, factor=factor),
        (0.94, 1.06),
    ),
    "low-pass": Change(
        "a low-pass at {:.0%} of the band",
        lambda clip, rate, share, rng: filter_band(
            clip, rate_hz=rate, band_hz=(0.0, share * rate / 2)
        ),
        (0.55, 0.95),
    ),
    "8 kHz": Change(
        "8 kHz",
        lambda clip, rate, strength, rng: resample_to(clip, rate_hz=rate, to_hz=8000),
        kind="telephone",
    ),
    "telephone": _call("a telephone", None),
    "mu-law": _call("a telephone with µ-law", "mu-law"),
    "gsm": _call("a telephone with GSM", "gsm"),
}
"""Harmless changes by name; ``none`` leaves a clip as it is."""
