from __future__ import annotations

import inspect

import pytest
import torch

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.errors import InputError
from nip_audio.purifiers.base import Purifier
from nip_audio.purifiers.noise import GaussianNoise, MatchedNoise
from nip_audio.purifiers.quantization import Quantization

WAVEFORM = Bounds(-1.0, 1.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch() -> Batch:
    x = 0.3 * (torch.rand(2, 4000, generator=seeded(7)) - 0.5)
    return Batch(x, torch.tensor([4000, 3000]))


PURIFIERS = [
    GaussianNoise(snr_db=15.0, bounds=WAVEFORM),
    MatchedNoise(Quantization(bits=6, bounds=WAVEFORM), bounds=WAVEFORM),
    Quantization(bits=6, bounds=WAVEFORM),
]


@pytest.mark.parametrize("purifier", PURIFIERS, ids=lambda p: p.name)
def test_keeps_shape_bounds_padding_and_input(purifier, batch):
    given = batch.x.clone()
    out = purifier.purify(batch, generator=seeded(1))
    assert torch.equal(batch.x, given)
    assert out.x.shape == batch.x.shape
    assert out.x[1, 3000:].eq(0).all()
    assert out.x.abs().max() <= 1
    assert not torch.equal(out.x, batch.masked())
    again = purifier.purify(batch, generator=seeded(1))
    assert torch.equal(out.x, again.x)
    other = purifier.purify(batch, generator=seeded(2))
    assert torch.equal(out.x, other.x) != purifier.random


@pytest.mark.parametrize("purifier", PURIFIERS, ids=lambda p: p.name)
def test_is_differentiable_as_it_says(purifier, batch):
    x = batch.x.clone().requires_grad_(True)
    out = purifier.purify(batch.with_x(x), generator=seeded(1)).x.sum()
    (gradient,) = torch.autograd.grad(out, x)
    assert bool(gradient.abs().sum() > 0) == purifier.differentiable


def test_a_purifier_is_given_neither_label_nor_original():
    for kind in (Purifier, GaussianNoise, MatchedNoise, Quantization):
        assert list(inspect.signature(kind.purify).parameters) == ["self", "batch", "generator"]


def test_noise_has_its_level_over_the_valid_samples(batch):
    out = GaussianNoise(snr_db=15.0, bounds=WAVEFORM).purify(batch, generator=seeded())
    signal = batch.masked().square().sum(dim=1)
    noise = (out.x - batch.masked()).square().sum(dim=1)
    torch.testing.assert_close(10 * torch.log10(signal / noise), torch.full((2,), 15.0))


def test_matched_noise_has_the_energy_of_the_others_change(batch):
    other = Quantization(bits=5, bounds=WAVEFORM)
    matched = MatchedNoise(other, bounds=WAVEFORM)
    clean = batch.masked()
    of_other = (other.purify(batch, generator=seeded()).x - clean).norm(dim=1)
    of_noise = (matched.purify(batch, generator=seeded()).x - clean).norm(dim=1)
    torch.testing.assert_close(of_noise, of_other)
    assert matched.settings()["of"] == other.settings()


def test_quantization_rounds_to_its_levels():
    x = torch.tensor([[0.0, 0.1, 0.12, 0.9999, -1.0]])
    out = Quantization(bits=4, bounds=WAVEFORM).purify(Batch(x), generator=seeded())
    torch.testing.assert_close(out.x, torch.tensor([[0.0, 0.125, 0.125, 1.0, -1.0]]))


@pytest.mark.parametrize("snr_db", [-100.0, 200.0, float("nan")])
def test_senseless_level_is_an_error(snr_db):
    with pytest.raises(InputError, match="expected decibels between -60 and 120"):
        GaussianNoise(snr_db=snr_db, bounds=WAVEFORM)


def test_senseless_bits_are_an_error():
    with pytest.raises(InputError, match="bits is 0, expected 1 to 16"):
        Quantization(bits=0, bounds=WAVEFORM)
