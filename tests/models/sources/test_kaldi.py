"""Kaldi's features: equal to torchaudio's, in batches and with gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torchaudio.compliance import kaldi

from nip_audio.audio.resynthesis import can_resynthesize, resynthesize
from nip_audio.errors import InputError
from nip_audio.models.sources.kaldi import WINDOWS, KaldiFbank, KaldiFeatures
from tests.tolerance import rounding


def speech(seed: int, size: int = 12000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    steps = torch.arange(size) / 16000
    tone = sum(torch.sin(2 * math.pi * 140 * k * steps) / k for k in range(1, 20))
    loud = 0.6 + 0.4 * torch.sin(2 * math.pi * 3 * steps)
    return 0.05 * tone * loud + 0.003 * torch.randn(size, generator=generator)


def reference(wav: torch.Tensor, **given: object) -> torch.Tensor:
    return kaldi.fbank(wav[None], dither=0.0, **given).T


def features(front_end: KaldiFbank, wavs: torch.Tensor) -> torch.Tensor:
    back = KaldiFeatures(front_end.band_range, subtract_mean=False)
    return back(front_end(wavs)[0])


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("scale", [1.0, 32768.0])
def test_equals_torchaudio(window, scale):
    wav = speech(0).double()
    expected = reference(scale * wav, num_mel_bins=80, window_type=window)
    found = features(KaldiFbank(window=window, scale=scale), wav[None])[0]
    assert found.shape == expected.shape
    # window and filters are kept in 32 bits; a band's power may be 1e-4 of what they sum
    assert float((found - expected).abs().max()) < 1e-4


def test_equals_torchaudio_in_32_bits_as_well_as_torchaudio_does():
    wav = speech(1)
    exact = reference(32768 * wav.double(), num_mel_bins=80, window_type="hamming")
    theirs = reference(32768 * wav, num_mel_bins=80, window_type="hamming")
    ours = features(KaldiFbank(), wav[None])[0]
    # levels are kept as parts of a range of 227 decibels, or 52 in natural logarithms
    allowed = 3 * float((theirs - exact).abs().max()) + rounding(size=52.0)
    assert float((ours - exact).abs().max()) < allowed


@pytest.mark.parametrize(
    ("rate", "bands", "length"), [(8000, 40, 25.0), (16000, 24, 20.0), (16000, 60, 32.0)]
)
def test_equals_torchaudio_at_other_settings(rate, bands, length):
    wav = speech(2).double()
    expected = reference(
        wav, num_mel_bins=bands, sample_frequency=rate, frame_length=length, window_type="povey"
    )
    front_end = KaldiFbank(rate, bands=bands, window="povey", frame_length_ms=length, scale=1.0)
    assert float((features(front_end, wav[None])[0] - expected).abs().max()) < 1e-4


def test_never_clips():
    front_end = KaldiFbank()
    square = torch.where(torch.arange(16000) % 16 < 8, 1.0, -1.0)
    worst = torch.where(torch.arange(16000) % 2 < 1, 1.0, -1.0)
    loudest = torch.stack([square, worst, torch.ones(16000), speech(0, 16000) / 0.3])
    assert float(front_end(loudest.clamp(-1, 1))[0].max()) < 1
    silent = features(front_end, torch.zeros(1, 4000))
    assert float((silent - math.log(torch.finfo(torch.float32).eps)).abs().max()) < 1e-4


def test_padding_has_no_effect():
    front_end = KaldiFbank()
    wavs = torch.zeros(2, 12000)
    wavs[0], wavs[1, :7000] = speech(0), speech(1)[:7000]
    wavs[1, 7000:] = 0.3
    x, frames = front_end(wavs, torch.tensor([12000, 7000]))
    single, _ = front_end(wavs[1:, :7000])
    assert frames.tolist() == [73, 42]
    torch.testing.assert_close(x[1:, :, :42], single, rtol=0, atol=rounding())
    assert bool((x[1, :, 42:] == 0).all())
    back = KaldiFeatures(front_end.band_range)
    both, one = back(x, frames), back(single)
    torch.testing.assert_close(both[1:, :, :42], one, rtol=0, atol=rounding(size=52.0))
    assert bool((both[1, :, 42:] == 0).all())
    assert float(one.mean(dim=2).abs().max()) < rounding(size=52.0)


def test_gradients_reach_the_waveform():
    front_end = KaldiFbank(bands=4, frame_length_ms=1.0, frame_shift_ms=1.0)
    wav = speech(0, 40).double()[None].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: front_end(x)[0], wav)


def test_its_spectrogram_becomes_sound_again():
    front_end, wav = KaldiFbank(), speech(0)
    assert can_resynthesize(front_end)
    before = front_end(wav[None])[0][0]
    louder = before + 6.0 / front_end.band_range.width_db
    samples = resynthesize(wav, before, louder, front_end).samples
    assert 20 * math.log10(float(samples.norm() / wav.norm())) == pytest.approx(6.0, abs=0.3)


@pytest.mark.parametrize(
    "given",
    [{"window": "hann"}, {"bands": 3}, {"frame_length_ms": 0.0}, {"scale": 0.0}],
)
def test_refuses_settings_out_of_range(given):
    with pytest.raises(InputError, match="expected"):
        KaldiFbank(**given)


def test_refuses_less_than_a_frame():
    with pytest.raises(InputError, match="one frame of 400"):
        KaldiFbank()(torch.zeros(1, 399))
