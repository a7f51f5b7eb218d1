"""Cut the sound of a recording into windows, so that silence cannot dilute an attack.

A network that averages over time is fooled by an attack in a part of a recording; a detector that
averages, too, sees less of it the more silence stands beside. So silence is left out, and every
window is judged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nip_audio.errors import InputError

__all__ = ["LEAST_SOUND_S", "Window", "has_speech", "sound_of", "voice_of", "windows_of"]

LEAST_SOUND_S = 0.5
"""Length of sound below which a recording cannot be judged."""

_FRAME_S = 0.02
_AROUND_S = 1.0
_COLLAR_S = 0.1
_SHORT_GAP_S = 0.3
# below these, in decibels, a frame is silence: to full scale, to the loudest within a second, and
# to the loudest of the file. The last is far below: a loud tone elsewhere must not hide speech.
_SILENT_DB = -75.0
_BELOW_NEIGHBOURS_DB = 35.0
_BELOW_FILE_DB = 55.0
_PART_S = 0.02
_STEADY_DB = 3.0  # hiss and hum vary by less, speech as loud as white noise by 3.4 at least
_PADDING_S = 0.5
_LEAST_SOUND_SHARE = 0.5

Sound = NDArray[np.bool_]
"""Which samples of a recording belong to sound, (N,)."""


@dataclass(frozen=True)
class Window:
    """A part of a recording's sound.

    Attributes:
        start_s: Where it begins in the recording, in seconds.
        samples: (N,) samples without silence.
    """

    start_s: float
    samples: Tensor


def sound_of(samples: Tensor, sample_rate_hz: int) -> Sound:
    """Tell which samples of a recording belong to sound rather than to silence.

    Pauses of less than 0.3 s and a tenth of a second around every sound count as sound, unless they
    are silent altogether, as no microphone is. This goes by levels alone: a network that finds
    speech could be attacked as well.

    Args:
        samples: (N ≥ 1,) waveform in [-1, 1].
        sample_rate_hz: Sample rate of the waveform.

    Raises:
        InputError: If the samples are not (N,).
    """
    x = samples.detach().cpu().double().numpy()
    if x.ndim != 1 or not len(x):
        raise InputError(f"samples are {x.shape}, expected (N,) of one channel; pass one recording")
    size = max(1, round(_FRAME_S * sample_rate_hz))
    count = -(-len(x) // size)
    padded = np.zeros(count * size)
    padded[: len(x)] = x
    frames = padded.reshape(count, size)
    # the mean of a frame is no sound: a constant offset must not turn silence into one
    power = np.square(frames - frames.mean(axis=1, keepdims=True)).mean(axis=1)
    level = 10 * np.log10(power + 1e-12)
    near = _largest_around(level, round(_AROUND_S / _FRAME_S))
    floor = np.maximum(near - _BELOW_NEIGHBOURS_DB, level.max() - _BELOW_FILE_DB)
    active = level > np.maximum(floor, _SILENT_DB)
    active = _widened(active, round(_COLLAR_S / _FRAME_S))
    active = _filled(active, round(_SHORT_GAP_S / _FRAME_S))
    # next to a sound, too, silence that no microphone makes would change what a window looks like
    active &= level > _SILENT_DB
    return np.asarray(np.repeat(active, size)[: len(x)])


def has_speech(samples: Tensor, sample_rate_hz: int, sound: Sound) -> bool:
    """Tell whether the level of a recording's sound varies as that of speech does.

    Hiss, hum and tones are steady: from one fiftieth of a second to the next their level hardly
    changes. So is speech that lies more than 5 dB below steady noise.

    Args:
        samples: (N,) waveform in [-1, 1].
        sample_rate_hz: Sample rate of the waveform.
        sound: What ``sound_of`` returns for it.
    """
    size = max(1, round(_PART_S * sample_rate_hz))
    heard = samples.detach().cpu().numpy()[sound]
    parts = heard[: len(heard) // size * size].reshape(-1, size)
    if len(parts) < 2:
        return bool(len(parts))
    level = 10 * np.log10(parts.var(axis=1) + 1e-12)
    low, high = np.quantile(level, (0.1, 0.9))
    return bool(high - low >= _STEADY_DB)


def voice_of(samples: Tensor, sample_rate_hz: int, sound: Sound | None = None) -> Tensor:
    """Return what a voice is taken from: all samples, without silence where there is much of it.

    Silence changes an embedding that averages over time: after as much of it as speech, a voice is
    hardly recognised. Half a second or more of one constant value is padding and left out. If less
    than half of the rest is sound, the sound alone is returned.

    Args:
        samples: (N,) waveform in [-1, 1].
        sample_rate_hz: Sample rate of the waveform.
        sound: What ``sound_of`` returns for it, if it is known.
    """
    sound = sound_of(samples, sample_rate_hz) if sound is None else sound
    if not sound.any():
        return samples
    kept = ~_padding(samples.detach().cpu().numpy(), round(_PADDING_S * sample_rate_hz))
    if (sound & kept).sum() < _LEAST_SOUND_SHARE * kept.sum():
        kept &= sound
    return samples if kept.all() else samples[torch.from_numpy(kept).to(samples.device)]


def _padding(x: NDArray[np.float32], least: int) -> Sound:
    """Tell which samples lie in runs of one constant value of a least length."""
    edges = np.flatnonzero(np.concatenate([[True], x[1:] != x[:-1], [True]]))
    padded = np.zeros(len(x), dtype=bool)
    for place in np.flatnonzero(np.diff(edges) >= least):
        padded[edges[place] : edges[place + 1]] = True
    return padded


def windows_of(
    samples: Tensor, *, most: int, sample_rate_hz: int, sound: Sound | None = None
) -> list[Window]:
    """Divide the sound of a recording into as few equal windows as its length allows.

    A recording with less sound than the longest window is one window, and one that is silent
    throughout is taken as it is.

    Args:
        samples: (N ≥ 1,) waveform in [-1, 1].
        most: Largest length of a window in samples; windows of longer recordings have at least half
            of it.
        sample_rate_hz: Sample rate of the waveform.
        sound: What ``sound_of`` returns for it, if it is known.

    Raises:
        InputError: If the samples are not (N,), or a window has no length.
    """
    if most < 1:
        raise InputError(f"a window of {most} samples was asked for, expected at least 1")
    sound = sound_of(samples, sample_rate_hz) if sound is None else sound
    if not sound.any():
        sound = np.ones_like(sound)
    whole = samples if sound.all() else samples[torch.from_numpy(sound)]
    count = -(-len(whole) // most)
    size = len(whole) // count
    starts = np.linspace(0, len(whole) - size, count).round().astype(int)
    places = np.flatnonzero(sound)[starts]
    return [
        Window(float(place) / sample_rate_hz, whole[start : start + size])
        for start, place in zip(starts.tolist(), places.tolist(), strict=True)
    ]


def _largest_around(values: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    padded = np.pad(values, reach, constant_values=-np.inf)
    return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).max(axis=1))


def _widened(active: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    return np.asarray(_largest_around(active.astype(float), reach) > 0)


def _filled(active: NDArray[np.bool_], longest: int) -> NDArray[np.bool_]:
    """Fill gaps between sounds that are no longer than ``longest`` frames."""
    filled = active.copy()
    places = np.flatnonzero(active)
    gaps = np.flatnonzero((np.diff(places) > 1) & (np.diff(places) <= longest + 1))
    for gap in gaps:
        filled[places[gap] : places[gap + 1]] = True
    return filled
