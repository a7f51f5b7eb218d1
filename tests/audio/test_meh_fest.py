from __future__ import annotations

import numpy as np
import pytest
import torch

from nip_audio.audio.meh_fest import MehFest, least_high_energy
from nip_audio.core.adapter import Batch
from nip_audio.errors import InputError
from tests.tolerance import rounding

RATE_HZ = 16000


def least(samples: np.ndarray, rate_hz: int = RATE_HZ) -> float:
    return float(least_high_energy(torch.from_numpy(samples), sample_rate_hz=rate_hz))


def noise(rms: float, size: int = RATE_HZ, seed: int = 0) -> np.ndarray:
    return rms * np.random.default_rng(seed).standard_normal(size)


def tone(size: int = RATE_HZ) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * 440 * np.arange(size) / RATE_HZ)


def test_least_energy_by_the_definition():
    samples = noise(0.01)
    window = np.zeros(512)
    window[56:456] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    starts = range(0, RATE_HZ - 512 + 1, 160)
    spectra = [np.fft.rfft(samples[s : s + 512] * window) for s in starts]
    expected = min((np.abs(s[224:]) ** 2).sum() for s in spectra)
    assert least(samples) == pytest.approx(expected, rel=rounding(2))


def test_white_noise_under_a_tone_is_measured_by_its_power():
    """33 bins from 7 to 8 kHz, each with the power of the window, 150 σ²; the least is below."""
    for rms in (1e-3, 1e-2):
        energy = least(tone() + noise(rms))
        assert 0.2 < energy / (33 * 150 * rms**2) < 1


def test_the_quietest_moment_counts():
    loud = noise(0.1)
    loud[8000:9000] = noise(1e-4, 1000)
    energy = least(loud)
    assert energy < 33 * 150 * 1e-8
    without = least(noise(0.1))
    assert without > 1e4 * energy


def test_decibels_and_the_floor():
    measure = MehFest(sample_rate_hz=RATE_HZ)

    def row(samples: np.ndarray) -> float:
        item = Batch(torch.from_numpy(samples)[None])
        return float(measure.measure(None, item, generator=None)[0])

    assert row(np.zeros(4800)) == -100.0
    assert row(10 * noise(1e-3)) == pytest.approx(row(noise(1e-3)) + 20, abs=1e-3)
    assert row(tone() + noise(2e-3)) > row(tone() + noise(1e-4)) + 20
    assert measure.suspicion(np.array([[-3.0]])) == -3.0


def test_less_than_a_frame_is_filled_up():
    assert least(noise(0.1, 50)) >= 0


@pytest.mark.parametrize("rate_hz", [8000, 44100, 48000])
def test_other_rates_have_the_same_share_of_the_band(rate_hz):
    time_s = np.arange(rate_hz) / rate_hz
    below, above = (
        least(np.sin(2 * np.pi * share * rate_hz / 2 * time_s), rate_hz) for share in (0.8, 0.93)
    )
    assert above > 1e4 * below


def test_what_is_no_single_waveform_is_an_error():
    for x in (torch.zeros(2, 4800), torch.zeros(1, 40, 30)):
        with pytest.raises(InputError, match="expected one waveform"):
            MehFest(sample_rate_hz=RATE_HZ).measure(None, Batch(x), generator=None)
    with pytest.raises(InputError, match="sample rate is 0 Hz"):
        MehFest(sample_rate_hz=0)


def test_a_gradient_leads_to_the_quiet():
    x = torch.from_numpy(tone(4800) + noise(1e-3, 4800))[None].requires_grad_(True)
    measure = MehFest(sample_rate_hz=RATE_HZ)
    before = measure.entry(Batch(x))
    (gradient,) = torch.autograd.grad(before.sum(), x)
    after = measure.entry(Batch(x.detach() - 1e-4 * gradient.sign()))
    assert float(after) < float(before.detach()) - 0.5
