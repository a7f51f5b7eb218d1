"""Find speech in a recording, and measure its level, the noise beside it and inserted silence.

Speech is found by silero-vad, a small network (MIT) whose weights come in its package. Everything
else follows from the samples and the speech that was found, and works for any other mask.
"""

from __future__ import annotations

import math
import warnings
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from nip_audio.audio.windows import Sound
from nip_audio.errors import InputError, MissingDependencyError

__all__ = ["estimate_snr_db", "find_speech", "level_dbfs", "silence_s", "speech_finder"]

_RATES_HZ = (8000, 16000)
_FRAME_S = 0.02
_GUARD_S = 0.1
_LEAST_PAUSE_S = 0.2
_DIGITAL = (1 / 32768) ** 2 / 12  # power of 16-bit rounding; no microphone is as quiet
_QUIETEST = 0.1
_PEAK, _LEAST_PEAK = 0.7, 1e-4
_SNR_DB = (-20.0, 80.0)

Array = NDArray[np.float64]


def speech_finder() -> str:
    """Return name and version of what finds speech; measurements of another are not comparable.

    Raises:
        MissingDependencyError: If silero-vad is not installed.
    """
    _silero()
    return f"silero-vad {version('silero-vad')}"


def find_speech(samples: Tensor, sample_rate_hz: int) -> Sound:
    """Tell which samples of a recording are speech.

    Pauses shorter than 0.1 s, and 30 ms around speech, count as speech, as silero-vad has it. Quiet
    recordings are amplified before, so that how much is found does not depend on their level.

    Args:
        samples: (N ≥ 1,) waveform in [-1, 1].
        sample_rate_hz: Sample rate of the waveform.

    Returns:
        (N,) bool.

    Raises:
        MissingDependencyError: If silero-vad is not installed.
    """
    network, timestamps = _silero()
    x, rate_hz = samples.detach().cpu().float(), sample_rate_hz
    if rate_hz not in _RATES_HZ:
        x, rate_hz = torch.from_numpy(soxr.resample(x.numpy(), rate_hz, _RATES_HZ[1])), _RATES_HZ[1]
    x = x * (_PEAK / max(float(x.abs().max()), _LEAST_PEAK)) if len(x) else x
    speech = np.zeros(len(samples), dtype=bool)
    for part in timestamps(x, network, sampling_rate=rate_hz):
        start, stop = (round(part[end] * sample_rate_hz / rate_hz) for end in ("start", "end"))
        speech[start:stop] = True
    return speech


@cache
def _silero() -> tuple[Any, Any]:
    """Load the network once in each process, without the changes that its package makes to torch.

    Raises:
        MissingDependencyError: If silero-vad is not installed.
    """
    threads = torch.get_num_threads()
    try:
        import silero_vad
    except ImportError as err:
        raise MissingDependencyError("finding speech needs silero-vad", extra="gate") from err
    finally:
        torch.set_num_threads(threads)
    with warnings.catch_warnings():
        # its model is TorchScript, which torch calls deprecated
        warnings.simplefilter("ignore")
        network = silero_vad.load_silero_vad()
    return network, silero_vad.get_speech_timestamps


def level_dbfs(samples: Tensor, speech: Sound) -> float | None:
    """Return the root mean square (RMS) of the speech in decibels to full scale; None without any.

    Args:
        samples: (N,) waveform in [-1, 1].
        speech: (N,) which samples are speech.

    Example:
        >>> level_dbfs(torch.full((4,), 0.1) * torch.tensor([1, -1, 1, -1]), np.ones(4, bool))
        -20.0
    """
    x = _numbers(samples, speech)[speech]
    power = float(np.square(x - x.mean()).mean()) if len(x) else 0.0
    return round(10 * math.log10(power), 3) if power > 0 else None


def estimate_snr_db(samples: Tensor, sample_rate_hz: int, speech: Sound) -> float | None:
    """Estimate the signal-to-noise ratio from the speech and the pauses.

    The noise is the median power of the frames of 20 ms that lie 0.1 s or more from speech; where
    there are fewer than 0.2 s of them, it is the power below which a tenth of all frames lie, so
    that the ratio is rather too low. Frames of digital silence are left out. The signal is the mean
    power in speech, minus the noise. In a room the reverberation that lasts longer than 0.1 s
    counts as noise, so the ratio is lower there than a microphone's own noise would make it: what
    it tells is how clearly speech stands out.

    Args:
        samples: (N,) waveform in [-1, 1].
        sample_rate_hz: Sample rate of the waveform.
        speech: (N,) which samples are speech.

    Returns:
        Decibels in [-20, 80]; None if there is no speech.
    """
    x = _numbers(samples, speech)
    size = max(1, round(_FRAME_S * sample_rate_hz))
    count = len(x) // size
    if not count:
        return None
    frames = x[: count * size].reshape(count, size)
    power = np.square(frames - frames.mean(axis=1, keepdims=True)).mean(axis=1)
    spoken = speech[: count * size].reshape(count, size)
    guard = round(_GUARD_S / _FRAME_S)
    near = np.convolve(spoken.any(axis=1), np.ones(2 * guard + 1), mode="same") > 0
    live = power > _DIGITAL
    pauses, voiced = power[~near & live], power[spoken.all(axis=1) & live]
    if not len(voiced):
        return None
    enough = len(pauses) * _FRAME_S >= _LEAST_PAUSE_S
    noise = float(np.median(pauses) if enough else np.quantile(power[live], _QUIETEST))
    signal = max(float(voiced.mean()) - noise, 0.0)
    low, high = _SNR_DB
    ratio = 10 * math.log10(signal / noise) if signal > 0 else low
    return min(max(ratio, low), high)


def silence_s(samples: Tensor, sample_rate_hz: int) -> float:
    """Return the length of the longest run of one constant value that has sound on both sides.

    No microphone records that: it was inserted, or a noise gate or a lost packet left it. Padding
    at the beginning and the end does not count.

    Args:
        samples: (N,) waveform in [-1, 1].
        sample_rate_hz: Sample rate of the waveform.
    """
    x = samples.detach().cpu().numpy()
    edges = np.flatnonzero(np.concatenate([[True], x[1:] != x[:-1], [True]]))
    inside = np.diff(edges)[1:-1]
    return float(inside.max(initial=0)) / sample_rate_hz


def _numbers(samples: Tensor, speech: Sound) -> Array:
    x = samples.detach().cpu().double().numpy()
    if x.ndim != 1 or x.shape != speech.shape:
        raise InputError(
            f"samples are {x.shape} and speech is {speech.shape}, expected (N,) twice; pass the "
            "speech that was found in these samples"
        )
    return x
