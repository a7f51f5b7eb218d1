"""Faults are what their names say."""

from __future__ import annotations

import numpy as np
import pytest

from nip_audio.audio.speech import silence_s
from studies.gate.faults import FAULTS, RATE_HZ


@pytest.fixture
def made(voice):
    def make(name):
        draw = np.random.default_rng(0)
        return FAULTS[name].change(voice(1, 0, 5.0), voice(2, 0, 5.0), draw)

    return make


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_a_waveform(made, name):
    samples = made(name)
    assert samples.ndim == 1
    assert np.abs(samples).max() <= 1
    assert 5 * RATE_HZ <= len(samples) <= 8 * RATE_HZ


def test_each_fault_is_there(made, voice):
    import torch

    clip = voice(1, 0, 5.0)
    assert (np.abs(made("2 % of the samples clipped")) == 1).mean() == pytest.approx(0.02, abs=1e-3)
    assert np.std(made("40 dB quieter")) == pytest.approx(0.01 * np.std(clip), rel=1e-6)
    upsampled = made("sampled at 8 kHz, says 16 kHz")
    spectrum = np.abs(np.fft.rfft(upsampled * np.hanning(len(upsampled))))
    assert spectrum[len(spectrum) * 9 // 16 :].max() < 1e-4 * spectrum.max()
    gap = torch.from_numpy(made("a second of digital silence in it"))
    assert silence_s(gap, RATE_HZ) == pytest.approx(1.0, abs=0.001)
    noise = made("white noise at 5 dB") - clip
    assert 20 * np.log10(np.std(clip) / np.std(noise)) == pytest.approx(5, abs=0.2)
