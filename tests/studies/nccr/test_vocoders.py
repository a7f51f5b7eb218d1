from __future__ import annotations

import numpy as np
import pytest
import torch

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.errors import InputError
from studies.nccr.vocoders import GriffinLim, MelInversion

RATE_HZ = 16000
BOUNDS = Bounds(-1.0, 1.0)
BOTH = pytest.mark.parametrize("kind", [GriffinLim, MelInversion])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def loss(before: torch.Tensor, after: torch.Tensor) -> float:
    """Relative error of the magnitudes."""
    a, b = (
        torch.stft(x, 1024, 200, 800, torch.hann_window(800), return_complex=True).abs()
        for x in (before, after)
    )
    return float((a - b).norm() / a.norm())


@BOTH
def test_magnitudes_stay_and_phases_do_not(voice, kind):
    samples = torch.from_numpy(voice(1, 2))
    made = kind(sample_rate_hz=RATE_HZ, bounds=BOUNDS).purify(
        Batch(samples[None]), generator=seeded()
    )
    assert made.x.shape == (1, RATE_HZ)
    assert loss(samples, made.x[0]) < (0.3 if kind is GriffinLim else 0.7)
    assert (made.x[0] - samples).norm() > 0.3 * samples.norm()


def test_a_mel_spectrogram_says_less(voice):
    samples = torch.from_numpy(voice(1, 2))
    losses = [
        loss(samples, v.purify(Batch(samples[None]), generator=seeded()).x[0])
        for v in (
            GriffinLim(sample_rate_hz=RATE_HZ, bounds=BOUNDS),
            MelInversion(sample_rate_hz=RATE_HZ, bands=120, bounds=BOUNDS),
            MelInversion(sample_rate_hz=RATE_HZ, bands=20, bounds=BOUNDS),
        )
    ]
    assert losses == sorted(losses)


@BOTH
def test_equal_generators_give_equal_sound(voice, kind):
    batch = Batch(torch.from_numpy(voice(1, 2, 0.3))[None])
    vocoder = kind(sample_rate_hz=RATE_HZ, bounds=BOUNDS)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = vocoder.purify(batch, generator=seeded(1)).x
    assert torch.equal(first, vocoder.purify(batch, generator=seeded(1)).x)
    assert not torch.equal(first, vocoder.purify(batch, generator=seeded(2)).x)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@BOTH
def test_padding_stays_and_does_not_matter(voice, kind):
    x = torch.stack([torch.from_numpy(voice(s, 2, 0.4)) for s in range(2)])
    vocoder = kind(sample_rate_hz=RATE_HZ, bounds=BOUNDS)
    out = vocoder.purify(Batch(x, torch.tensor([6400, 5000])), generator=seeded()).x
    assert out[1, 5000:].eq(0).all()
    generator = seeded()
    alone = [vocoder.purify(Batch(i), generator=generator).x for i in (x[:1], x[1:, :5000])]
    torch.testing.assert_close(out[:1], alone[0])
    torch.testing.assert_close(out[1:, :5000], alone[1])


@BOTH
@pytest.mark.parametrize("samples", [torch.zeros(4800), torch.ones(4800), torch.rand(60) - 0.5])
def test_silence_full_scale_and_the_shortest_are_taken(kind, samples):
    vocoder = kind(sample_rate_hz=RATE_HZ, bounds=BOUNDS)
    out = vocoder.purify(Batch(samples[None]), generator=seeded()).x
    assert out.shape == (1, len(samples))
    assert out.isfinite().all()
    assert out.abs().max() <= 1


def test_settings_say_everything_and_are_checked():
    vocoders = [
        GriffinLim(sample_rate_hz=RATE_HZ, bounds=BOUNDS),
        GriffinLim(sample_rate_hz=RATE_HZ, rounds=3, bounds=BOUNDS),
        MelInversion(sample_rate_hz=RATE_HZ, bounds=BOUNDS),
        MelInversion(sample_rate_hz=RATE_HZ, bands=40, bounds=BOUNDS),
    ]
    assert len({str(v.settings()) for v in vocoders}) == 4
    assert len({v.name for v in vocoders}) == 3
    with pytest.raises(InputError, match="rounds is 0"):
        GriffinLim(sample_rate_hz=RATE_HZ, rounds=0, bounds=BOUNDS)
    with pytest.raises(InputError, match="bands is 1000, expected 2 to 256; 80 is usual"):
        MelInversion(sample_rate_hz=RATE_HZ, bands=1000, bounds=BOUNDS)
    with pytest.raises(InputError, match="expected waveforms"):
        vocoders[0].purify(Batch(torch.zeros(1, 40, 30)), generator=seeded())
