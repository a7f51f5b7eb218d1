from __future__ import annotations

import numpy as np
import pytest
import torch

from nip_audio.evaluation.controls import CONTROLS, Control

RATE_HZ = 16000
BY_NAME = {control.name: control for control in CONTROLS}


@pytest.fixture
def clip(voice) -> torch.Tensor:
    return torch.from_numpy(voice(3, 1))


def apply(name: str, clip: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return BY_NAME[name].apply(clip, sample_rate_hz=RATE_HZ, seed=seed)


def snr_db(clip: torch.Tensor, changed: torch.Tensor) -> float:
    return float(20 * torch.log10(clip.norm() / (changed - clip).norm()))


@pytest.mark.parametrize("control", CONTROLS, ids=lambda c: c.name)
def test_keeps_length_type_bounds_and_is_reproducible(clip, control):
    given = clip.clone()
    out = control.apply(clip, sample_rate_hz=RATE_HZ, seed=4)
    assert torch.equal(clip, given)
    assert out.shape == clip.shape
    assert out.dtype == clip.dtype
    assert out.isfinite().all()
    assert out.abs().max() <= 1
    assert torch.equal(out, control.apply(clip, sample_rate_hz=RATE_HZ, seed=4))
    assert torch.equal(out, clip) == (control.name == "unchanged")


@pytest.mark.parametrize("name", ["MP3", "Ogg Vorbis", "Ogg Opus"])
def test_codecs_come_back_without_a_delay(clip, name):
    out = apply(name, clip)
    lags = np.correlate(out.numpy(), clip.numpy(), "full")
    assert abs(int(lags.argmax()) - (len(clip) - 1)) <= 2
    assert float(torch.cosine_similarity(out, clip, dim=0)) > 0.9


@pytest.mark.parametrize("level", [20, 30])
def test_noise_has_its_level_and_comes_from_the_seed(clip, level):
    name = f"white noise, {level} dB SNR"
    assert snr_db(clip, apply(name, clip)) == pytest.approx(level, abs=0.2)
    assert not torch.equal(apply(name, clip, 1), apply(name, clip, 2))


def test_gain_is_a_factor(clip):
    torch.testing.assert_close(apply("10 dB quieter", clip), clip * 10**-0.5)


def test_a_shift_is_circular(clip):
    torch.testing.assert_close(apply("0.1 s later", clip), clip.roll(1600))


def energy_above(clip: torch.Tensor, frequency_hz: float) -> float:
    energy = torch.fft.rfft(clip).abs().square()
    first = round(frequency_hz * len(clip) / RATE_HZ)
    return float(energy[first:].sum() / energy.sum())


def test_bands_end_where_they_should():
    noise = 0.1 * torch.randn(RATE_HZ, generator=torch.Generator().manual_seed(0))
    assert energy_above(noise, 4200) > 0.4
    assert energy_above(apply("8 kHz and back", noise), 4200) < 1e-3
    assert energy_above(apply("telephone band", noise), 4500) < 0.02


def test_faster_raises_the_pitch():
    time_s = torch.arange(RATE_HZ) / RATE_HZ
    out = apply("3 % faster", 0.5 * torch.sin(2 * torch.pi * 400 * time_s))
    peak = int(torch.fft.rfft(out[:15000], n=RATE_HZ).abs().argmax())
    assert peak == pytest.approx(412, abs=1)


def test_reverberation_is_as_loud_and_lasts(clip):
    out = apply("reverberation", clip)
    assert float(out.norm() / clip.norm()) == pytest.approx(1.0, abs=1e-3)
    click = torch.zeros(RATE_HZ)
    click[100] = 0.5
    assert apply("reverberation", click)[1000:4000].abs().max() > 1e-3


def test_what_is_shorter_is_padded_with_silence():
    half = Control("half", lambda clip, rate, rng: clip[:50])
    out = half.apply(torch.ones(100), sample_rate_hz=RATE_HZ, seed=0)
    assert out.tolist() == [1.0] * 50 + [0.0] * 50


def test_vorbis_takes_recordings_of_minutes():
    """Encoded in one call they overflow libsndfile's stack, which ends the process."""
    noise = 0.1 * torch.randn(200 * RATE_HZ, generator=torch.Generator().manual_seed(0))
    assert float(torch.cosine_similarity(apply("Ogg Vorbis", noise), noise, dim=0)) > 0.9
