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

__all__ = ["LEAST_SOUND_S", "Window", "sound_of", "windows_of"]

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


@dataclass(frozen=True)
class Window:
    """A part of a recording's sound.

    Attributes:
        start_s: Where it begins in the recording, in seconds.
        samples: (N,) samples without silence.
    """

    start_s: float
    samples: Tensor


def sound_of(samples: Tensor, sample_rate_hz: int) -> NDArray[np.bool_]:
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


def windows_of(samples: Tensor, *, most: int, sample_rate_hz: int) -> list[Window]:
    """Divide the sound of a recording into as few equal windows as its length allows.

    A recording with less sound than the longest window is one window, and one that is silent
    throughout is taken as it is.

    Args:
        samples: (N ≥ 1,) waveform in [-1, 1].
        most: Largest length of a window in samples; windows of longer recordings have at least half
            of it.
        sample_rate_hz: Sample rate of the waveform.

    Raises:
        InputError: If the samples are not (N,), or a window has no length.
    """
    if most < 1:
        raise InputError(f"a window of {most} samples was asked for, expected at least 1")
    sound = sound_of(samples, sample_rate_hz)
    if not sound.any():
        sound[:] = True
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
