"""Estimate the bandwidth of a recording and find dropouts, both traces of its transmission."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nip_audio.errors import InputError

__all__ = ["Condition", "condition_of"]

_BAND_HZ = 250.0
_STEP = 1 / 32768
_ABOVE_ROUNDING = 10 ** (12 / 10)
_LOUD = 0.95
_DROPOUT_S = 0.02
_EDGE_S = 0.01
_EDGE_RMS = 0.003
_EDGE_BELOW_DB = (
    12.0  # a noise gate closes after the level fell by more; a lost packet does not wait
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Condition:
    """Traces that recording and transmission left in the audio.

    Attributes:
        bandwidth_hz: Highest frequency with signal above the 16-bit rounding noise, where the audio
            is loudest. Telephones and low bit rates limit it, whatever the file's sample rate.
        dropouts: Number of places where the signal abruptly becomes one constant value and abruptly
            returns, as lost packets cause it; a pause in speech fades instead, and a noise gate
            closes in a pause.
        dropped_share: Share of all samples that lie in dropouts, in [0, 1].
    """

    bandwidth_hz: float
    dropouts: int
    dropped_share: float


def condition_of(samples: Tensor, sample_rate_hz: int) -> Condition:
    """Measure the bandwidth and the dropouts of a recording.

    Args:
        samples: (N ≥ 512,) waveform in [-1, 1].
        sample_rate_hz: Sample rate of the waveform.

    Raises:
        InputError: If there are fewer than 512 samples, or several channels.
    """
    x = samples.detach().cpu().double().numpy()
    if x.ndim != 1 or len(x) < 512:
        raise InputError(
            f"samples are {x.shape}, expected at least 512 of one channel; use a longer recording"
        )
    runs = _dropouts(x, sample_rate_hz)
    lost = sum(stop - start for start, stop in runs)
    return Condition(_bandwidth(x, sample_rate_hz), len(runs), lost / len(x))


def _bandwidth(x: Array, rate: int) -> float:
    window = torch.hann_window(512, periodic=False, dtype=torch.float64)
    frames = torch.stft(
        torch.from_numpy(x), 512, 256, window=window, pad_mode="constant", return_complex=True
    )
    power = (frames.real.square() + frames.imag.square()) / (rate * window.square().sum())
    bins = max(1, round(_BAND_HZ * 512 / rate))
    count = power.shape[0] // bins
    means = torch.eye(count, dtype=torch.float64).repeat_interleave(bins, dim=1) / bins
    bands = (means @ power[: count * bins]).numpy()
    # rounding noise of one step is white: its power, step² / 12, over half the rate
    floor = _ABOVE_ROUNDING * _STEP**2 / 12 / (rate / 2)
    audible = np.flatnonzero(np.quantile(bands, _LOUD, axis=1) > floor)
    return float((audible[-1] + 1) * bins * rate / 512) if len(audible) else 0.0


def _dropouts(x: Array, rate: int) -> list[tuple[int, int]]:
    """Find runs of one constant value with sound directly before and after: (start, stop) samples.

    The sound on both sides is about as loud as all sound of the recording is.
    """
    still = np.concatenate([[False], np.abs(np.diff(x)) < _STEP / 2, [False]])
    edges = np.flatnonzero(np.diff(still.astype(np.int8)))
    starts, stops = edges[::2], edges[1::2] + 1
    long = stops - starts >= _DROPOUT_S * rate
    if not long.any():
        return []
    moving = np.ones(len(x), dtype=bool)
    for start, stop in zip(starts[long].tolist(), stops[long].tolist(), strict=True):
        moving[start:stop] = False
    if not moving.any():
        return []
    least = max(_EDGE_RMS, float(x[moving].std()) * 10 ** (-_EDGE_BELOW_DB / 20))
    around = round(_EDGE_S * rate)
    found = []
    for start, stop in zip(starts[long].tolist(), stops[long].tolist(), strict=True):
        sides = x[max(0, start - around) : start], x[stop : stop + around]
        if all(len(side) == around and side.std() > least for side in sides):
            found.append((start, stop))
    return found
