"""Put one fault into a clean clip of speech, as people and machines do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

__all__ = ["FAULTS", "RATE_HZ", "Array", "Draw", "Fault", "follow"]

Array = NDArray[np.float32]
Draw = np.random.Generator
Change = Callable[[Array, Array, Draw], Array]

RATE_HZ = 16_000
_SHORT_S, _LONG_S = 0.4, 6.0
_ROOM_RMS = 10 ** (-65 / 20)
_CLIPPED_SHARE = 0.02
_QUIET = 10 ** (-40 / 20)
_NOISE_DB = 5.0
_CHORDS_HZ = (220.0, 261.6, 329.6, 392.0, 440.0, 523.3)


@dataclass(frozen=True)
class Fault:
    """A fault, and what the gate is expected to say.

    Attributes:
        limit: Key of the limit that the clip no longer keeps; ``silent`` is an error of the reader.
        change: Function of a clip, a clip of another speaker, and a generator.
    """

    limit: str
    change: Change


def _two_speakers(clip: Array, other: Array, draw: Draw) -> Array:
    lengths = (draw.uniform(2.5, 4.0, 2) * RATE_HZ).astype(int)
    return follow(clip[: lengths[0]], other[: lengths[1]])


def follow(clip: Array, other: Array) -> Array:
    """Return a clip and, at its level, another one after it."""
    level = float(np.std(clip)) / max(float(np.std(other)), 1e-9)
    return np.concatenate([clip, (level * other).clip(-1, 1)])


def _short(clip: Array, _: Array, draw: Draw) -> Array:
    room = draw.normal(0, _ROOM_RMS, round(_LONG_S * RATE_HZ)).astype(np.float32)
    size = round(_SHORT_S * RATE_HZ)
    loudest = int(np.argmax(np.convolve(clip**2, np.ones(size), mode="valid")))
    start = int(draw.integers(0, len(room) - size))
    room[start : start + size] += clip[loudest : loudest + size]
    return room


def _upsampled(clip: Array, _: Array, __: Draw) -> Array:
    low = soxr.resample(clip, RATE_HZ, RATE_HZ // 2, quality="VHQ")
    return np.asarray(soxr.resample(low, RATE_HZ // 2, RATE_HZ, quality="VHQ"))


def _clipped(clip: Array, _: Array, __: Draw) -> Array:
    highest = np.float32(np.quantile(np.abs(clip), 1 - _CLIPPED_SHARE))
    return np.asarray((clip / highest).clip(-1, 1))


def _quiet(clip: Array, _: Array, __: Draw) -> Array:
    return _QUIET * clip


def _noisy(clip: Array, _: Array, draw: Draw) -> Array:
    rms = float(np.std(clip)) * 10 ** (-_NOISE_DB / 20)
    return (clip + draw.normal(0, rms, len(clip))).clip(-1, 1).astype(np.float32)


def _tones(_: Array, __: Array, draw: Draw) -> Array:
    """Chords of three notes with three harmonics each, half a second long, that die away."""
    size = RATE_HZ // 2
    time_s = np.arange(size) / RATE_HZ
    parts = []
    for _chord in range(round(2 * _LONG_S)):
        notes = draw.choice(_CHORDS_HZ, 3, replace=False)
        waves = [np.sin(2 * np.pi * k * hz * time_s) / k for hz in notes for k in (1, 2, 3)]
        parts.append(0.05 * np.sum(waves, axis=0) * np.exp(-3 * time_s))
    return np.concatenate(parts).astype(np.float32)


def _gap(clip: Array, _: Array, __: Draw) -> Array:
    """Put a second of digital silence into the quietest place."""
    size = RATE_HZ // 10
    quietest = int(np.argmin(np.convolve(clip**2, np.ones(size), mode="valid"))) + size // 2
    return np.insert(clip, quietest, np.zeros(RATE_HZ, np.float32))


def _silent(clip: Array, _: Array, __: Draw) -> Array:
    return np.zeros_like(clip)


FAULTS: Mapping[str, Fault] = {
    "two speakers, one after the other": Fault("least_part_cosine", _two_speakers),
    "0.4 s of speech in 6 s": Fault("least_speech_s", _short),
    "sampled at 8 kHz, says 16 kHz": Fault("least_bandwidth_hz", _upsampled),
    "2 % of the samples clipped": Fault("most_clipped_share", _clipped),
    "40 dB quieter": Fault("least_level_dbfs", _quiet),
    "white noise at 5 dB": Fault("least_snr_db", _noisy),
    "chords instead of speech": Fault("least_speech_s", _tones),
    "a second of digital silence in it": Fault("most_silence_s", _gap),
    "silent throughout": Fault("silent", _silent),
}
