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
from nip_audio.audio.windows import windows_of
from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.screening.measure import device_of
from nip_audio.screening.probes import ResponseProbe
from nip_audio.screening.response import measure_windows

__all__ = [
    "MeasuredSound",
    "likeness_of",
    "measure_sound",
    "signals_of",
    "spectrum_of",
    "voice_in",
]

_MOST_BANDS, _FEW_BANDS = 128, 64


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
