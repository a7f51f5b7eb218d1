from __future__ import annotations

import numpy as np
import pytest
import soxr
import torch

from nip_audio.audio.condition import condition_of
from nip_audio.audio.io import to_16_bits
from nip_audio.errors import InputError


@pytest.fixture
def hiss() -> np.ndarray:
    return 0.05 * np.random.default_rng(0).standard_normal(32000)


def of(samples: np.ndarray):
    return condition_of(to_16_bits(torch.from_numpy(samples.astype(np.float32))), 16000)


@pytest.mark.parametrize("rate", [16000, 12000, 8000, 6000])
def test_bandwidth_is_where_the_audio_was_cut(hiss, rate):
    cut = soxr.resample(soxr.resample(hiss, 16000, rate), rate, 16000)
    assert of(cut).bandwidth_hz == pytest.approx(rate / 2, abs=500)


def test_bandwidth_goes_by_the_loudest_moments(hiss):
    low = soxr.resample(soxr.resample(hiss, 16000, 4000), 4000, 16000)
    low[8000:12000] += hiss[8000:12000]  # a fricative now and then reaches up
    assert of(low).bandwidth_hz == 8000


def test_silence_has_none():
    assert of(np.zeros(16000)).bandwidth_hz == 0.0


def test_dropouts_are_abrupt(hiss):
    lossy = hiss.copy()
    lossy[5000:5800] = 0.0
    lossy[20000:20400] = 0.0
    condition = of(lossy)
    assert (condition.dropouts, condition.dropped_share) == (2, 1200 / 32000)


def test_a_pause_that_fades_and_silence_at_the_ends_are_none(hiss):
    faded = hiss.copy()
    faded[:3000] = 0.0
    faded[-3000:] = 0.0
    fade = np.linspace(1, 0, 2000) ** 4
    faded[8000:10000] *= fade
    faded[10000:12000] = 0.0
    faded[12000:14000] *= fade[::-1]
    assert of(faded).dropouts == 0


def test_refuses_what_is_too_short():
    with pytest.raises(InputError, match="at least 512"):
        condition_of(torch.zeros(100), 16000)


def gated(speech: np.ndarray, threshold: float) -> np.ndarray:
    """Silence what a noise gate does not let through: below a level, for 20 ms and longer."""
    level = np.sqrt(np.convolve(speech.astype(float) ** 2, np.ones(80) / 80, "same"))
    loud = np.where(level > threshold, np.arange(len(speech)), -1000)
    return np.where(np.arange(len(speech)) - np.maximum.accumulate(loud) <= 320, speech, 0.0)


@pytest.fixture
def words(hiss) -> np.ndarray:
    """Six words whose level rises and falls, with faint noise between them."""
    time_s = np.arange(len(hiss)) / 16000
    return hiss * np.maximum(np.sin(2 * np.pi * 3 * time_s), 0.01)


def test_a_noise_gate_loses_no_packets(words):
    closed = gated(words, 0.01)
    assert np.mean(closed == 0.0) > 0.3
    assert of(closed).dropouts == 0


@pytest.mark.parametrize("offset", [0.0, 0.004])
def test_packets_lost_in_words_are_counted_whatever_they_are_replaced_by(words, offset):
    lossy = words + offset
    for start in (1200, 12000, 22700):  # within a word each
        lossy[start : start + 480] = offset
    assert of(lossy).dropouts == 3
