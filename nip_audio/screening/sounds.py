"""Measure what a recording holds: the windows of its sound, its spectrum and its voices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nip_audio.audio.channels import Channel
from nip_audio.audio.front_ends import levels_of
from nip_audio.audio.io import Audio
from nip_audio.audio.speech import (
    estimate_snr_db,
    find_speech,
    level_dbfs,
    silence_s,
    speech_finder,
)
from nip_audio.audio.windows import Sound, windows_of
from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.screening.measure import device_of
from nip_audio.screening.measured import SpeechEvidence
from nip_audio.screening.probes import ResponseProbe
from nip_audio.screening.response import measure_windows

__all__ = [
    "MeasuredSound",
    "likeness_of",
    "measure_sound",
    "measure_speech",
    "voice_change",
    "signals_of",
    "spectrum_of",
    "voice_in",
]

_MOST_BANDS, _FEW_BANDS = 128, 64
_WINDOW_S, _STEP_S, _PART_S = 1.0, 0.25, 2.5
_AT_ONCE = 32


def spectrum_of(model: InstrumentedModel, model_input: Tensor) -> NDArray[np.float64]:
    """Return the mean and spread of each band of one item of model input, without its level."""
    levels = _few_bands(levels_of(model.front_end, model_input))
    features = levels - levels.mean()
    spectrum = torch.cat([features.mean(dim=1), features.std(dim=1)])
    return np.asarray(spectrum.double().cpu().numpy())


def _few_bands(levels: Tensor) -> Tensor:
    """Join neighbouring bands of a spectrum (F, T) with many more than a spectrogram has."""
    if len(levels) <= _MOST_BANDS:
        return levels
    pooled = torch.nn.functional.adaptive_avg_pool1d(levels.T[None], _FEW_BANDS)
    return pooled[0].T


@dataclass(frozen=True)
class MeasuredSound:
    """Measured windows of a recording's sound.

    Attributes:
        windows: (2 W,) start and length of each window in seconds.
        channels: (W,) channel of each window, as in ``Measurement``; (0,) if there is only one.
        rows: (W, F) measured rows.
        spectrum: (2 B,) mean spectrum of the windows of the first signal: a calibration's spectra
            are of windows, too, without silence.
    """

    windows: NDArray[np.float64]
    channels: NDArray[np.float64]
    rows: NDArray[np.float64]
    spectrum: NDArray[np.float64]


def measure_sound(
    model: InstrumentedModel,
    probe: ResponseProbe,
    signals: Sequence[Channel],
    *,
    generator: torch.Generator,
) -> MeasuredSound:
    """Measure the windows of the sound of each signal of a recording.

    Args:
        model: Model that the purifier was trained for.
        probe: What is measured.
        signals: The mixture, which has number 0, and channels to be measured besides. The first
            signal's rows are the same whatever others there are.
        generator: Random generator of the noise.
    """
    places: list[tuple[float, float]] = []
    numbers: list[int] = []
    rows: list[NDArray[np.float64]] = []
    spectra: list[NDArray[np.float64]] = []
    for signal in signals:
        rate_hz = signal.sample_rate_hz
        most = round(probe.window_s * rate_hz)
        windows = windows_of(signal.samples, most=most, sample_rate_hz=rate_hz, sound=signal.sound)
        places += [(window.start_s, len(window.samples) / rate_hz) for window in windows]
        numbers += [signal.number] * len(windows)
        together = torch.stack([window.samples for window in windows]).to(device_of(model))
        rows.append(measure_windows(model, probe, together, generator=generator))
        if not spectra:
            spectra = [spectrum_of(model, x) for x in model.to_input(Batch(together)).x]
    return MeasuredSound(
        np.array(places).flatten(),
        np.array(numbers, dtype=np.float64) if any(numbers) else np.zeros(0),
        np.concatenate(rows),
        np.mean(spectra, axis=0),
    )


def signals_of(item: Audio, speaking: Sequence[Channel]) -> list[Channel]:
    """Return what is measured: what holds speech of the mixture and the channels."""
    apart = not any(torch.equal(item.samples, one.samples) for one in speaking)
    mixture = [item.mixture] if item.mixture.speaks and apart else []
    return [*mixture, *speaking] or [item.mixture]


def voice_in(model: InstrumentedModel, samples: Tensor) -> NDArray[np.float64]:
    """Return the embedding of unit length of (N,) samples."""
    embedding = model.embed(Batch(samples[None].to(device_of(model))))[0]
    unit = torch.nn.functional.normalize(embedding, dim=0)
    return np.asarray(unit.cpu().double().numpy())


def likeness_of(model: InstrumentedModel, speaking: Sequence[Channel]) -> NDArray[np.float64]:
    """Return the smallest cosine similarity between the voices of two channels, (1,) or (0,)."""
    if len(speaking) < 2:
        return np.zeros(0)
    voices = np.stack([voice_in(model, one.voice) for one in speaking])
    return np.array([(voices @ voices.T).min()])


def measure_speech(model: InstrumentedModel, signal: Channel) -> SpeechEvidence:
    """Measure what the enrolment gate asks of the speech of one signal.

    Raises:
        MissingDependencyError: If silero-vad is not installed.
    """
    samples, rate_hz = signal.samples, signal.sample_rate_hz
    speech = find_speech(samples, rate_hz)
    cosine, change_s = voice_change(model, samples, rate_hz, speech)
    return SpeechEvidence(
        finder=speech_finder(),
        speech_s=float(speech.sum()) / rate_hz,
        snr_db=estimate_snr_db(samples, rate_hz, speech),
        level_dbfs=level_dbfs(samples, speech),
        silence_s=silence_s(samples, rate_hz),
        part_cosine=cosine,
        change_s=change_s,
    )


def voice_change(
    model: InstrumentedModel, samples: Tensor, sample_rate_hz: int, speech: Sound
) -> tuple[float | None, float | None]:
    """Find where the speech of a recording is best divided into two voices, one after the other.

    Windows of 1 s of speech, a quarter of a second apart, are embedded. Between any two places the
    mean embedding of the windows that end before is compared with that of the windows that begin
    after, and the smallest cosine counts. Each part has 2.5 s of speech or more, because the
    embedding of less is unreliable; from less than 5 s in all, about half. Speakers who take turns
    are found where one of them has most of the beginning or the end; two who speak at once are not.

    Args:
        model: Model that embeds.
        samples: (N,) waveform.
        sample_rate_hz: Sample rate of the waveform.
        speech: (N,) which samples are speech.

    Returns:
        The smallest cosine between two parts, and where the second begins in seconds; None twice
        for less than 2 s of speech.
    """
    places = np.flatnonzero(speech)
    size, step = round(_WINDOW_S * sample_rate_hz), round(_STEP_S * sample_rate_hz)
    starts = list(range(0, len(places) - size + 1, step))
    apart = size // step  # windows that share no sample
    if len(starts) <= apart:
        return None, None
    spoken = samples[torch.from_numpy(speech)]
    voices = []
    for first in range(0, len(starts), _AT_ONCE):
        windows = [spoken[start : start + size] for start in starts[first : first + _AT_ONCE]]
        embedded = model.embed(Batch(torch.stack(windows).to(device_of(model))))
        voices.append(torch.nn.functional.normalize(embedded, dim=1).cpu().double())
    cosine, second = _best_split(torch.cat(voices), apart)
    return cosine, float(places[starts[second]]) / sample_rate_hz


def _best_split(voices: Tensor, apart: int) -> tuple[float, int]:
    """Return the smallest cosine between the windows before and after a place.

    Args:
        voices: (n > apart, D) embeddings of unit length of the windows.
        apart: Windows from one to the next with which it shares no sample.

    Returns:
        The cosine, and the number of the first window of the second part.
    """
    sums = voices.cumsum(dim=0)
    before = torch.nn.functional.normalize(sums[:-apart], dim=1)
    after = torch.nn.functional.normalize(sums[-1] - sums[apart - 1 : -1], dim=1)
    cosines = (before * after).sum(dim=1)
    edge = min(round((_PART_S - _WINDOW_S) / _STEP_S), (len(cosines) - 1) // 2)
    best = edge + int(cosines[edge : len(cosines) - edge].argmin())
    return float(cosines[best]), best + apart
