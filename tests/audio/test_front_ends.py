"""Front ends that can be looked at."""

from __future__ import annotations

import pytest
import torch

from nip_audio.audio.front_ends import ComplexSpectrogram, levels_of


def test_levels_of_a_complex_spectrum_are_decibels_below_the_loudest_waveform():
    front_end = ComplexSpectrogram()
    wavs = torch.ones(1, 5120)  # the loudest: a constant of full scale
    x = front_end(wavs)[0][0]
    levels = levels_of(front_end, x)
    assert levels.shape == x.shape[1:]
    middle = levels.shape[1] // 2
    assert levels[0, middle].item() == pytest.approx(1.0, abs=1e-4)
    quieter = levels_of(front_end, front_end(wavs / 10)[0][0])
    assert quieter[0, middle].item() == pytest.approx(1 - 20 / front_end.LEVELS_DB, abs=1e-4)
    assert levels[100, middle].item() < 0.2


def test_a_spectrogram_is_looked_at_as_it_is():
    x = torch.rand(3, 4)
    assert levels_of(None, x) is x
