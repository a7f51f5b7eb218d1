from __future__ import annotations

import pytest
import torch

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.model import CosineHead
from nip_audio.errors import InputError
from nip_audio.purifiers.base import Purifier
from nip_audio.purifiers.defending import DefendedModel
from nip_audio.purifiers.noise import GaussianNoise
from nip_audio.purifiers.quantization import Quantization

WAVEFORM = Bounds(-1.0, 1.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch() -> Batch:
    return Batch(0.2 * (torch.rand(2, 8000, generator=seeded(7)) - 0.5))


class Halved(Purifier):
    """Works on the spectrogram."""

    level = "input"
    differentiable = True
    random = False
    name = "halved"

    def settings(self):
        return {"name": "halved"}

    def purify(self, batch, *, generator):
        return batch.with_x(batch.x / 2)


def test_raw_purifier_comes_before_the_front_end(tiny_model, batch):
    purifier = Quantization(bits=6, bounds=WAVEFORM)
    defended = DefendedModel(tiny_model, purifier, generator=seeded())
    expected = tiny_model.scores(purifier.purify(batch, generator=seeded()))
    torch.testing.assert_close(defended.scores(batch), expected)
    assert defended.labels == tiny_model.labels


def test_input_purifier_comes_behind_it(tiny_model, batch):
    defended = DefendedModel(tiny_model, Halved(), generator=seeded())
    features = tiny_model.to_input(batch)
    expected = tiny_model.score_embeddings(tiny_model.embed_input(features.with_x(features.x / 2)))
    torch.testing.assert_close(defended.scores(batch), expected)
    behind = defended.without_front_end()
    assert behind.bounds == tiny_model.input_bounds
    torch.testing.assert_close(behind.scores(Batch(features.x)), expected)


def test_attack_behind_a_raw_purifier_would_go_round_it(tiny_model):
    noise = GaussianNoise(snr_db=20, bounds=WAVEFORM)
    defended = DefendedModel(tiny_model, noise, generator=seeded())
    with pytest.raises(InputError, match="bypasses; attack at level 'raw'"):
        defended.without_front_end()


def test_gradient_goes_straight_through_what_has_none(tiny_model, batch):
    purifier = Quantization(bits=12, bounds=WAVEFORM)
    defended = DefendedModel(tiny_model, purifier, generator=seeded())
    x = batch.x.clone().requires_grad_(True)
    (got,) = torch.autograd.grad(defended.scores(batch.with_x(x)).sum(), x)
    purified = purifier.purify(batch, generator=seeded()).x.requires_grad_(True)
    (expected,) = torch.autograd.grad(tiny_model.scores(batch.with_x(purified)).sum(), purified)
    torch.testing.assert_close(got, expected)


def test_random_purifier_draws_anew(tiny_model, batch):
    noise = GaussianNoise(snr_db=10, bounds=WAVEFORM)
    defended = DefendedModel(tiny_model, noise, generator=seeded())
    first, second = defended.scores(batch), defended.scores(batch)
    assert not torch.equal(first, second)
    again = DefendedModel(tiny_model, noise, generator=seeded()).scores(batch)
    assert torch.equal(first, again)


def test_another_head_keeps_the_defence(tiny_model, batch):
    defended = DefendedModel(tiny_model, Halved(), generator=seeded())
    head = CosineHead(torch.randn(5, 6, generator=seeded(3)))
    other = defended.with_head(head)
    expected = head(defended.embed(batch))
    torch.testing.assert_close(other.scores(batch), expected)
    assert not other.training


def test_what_a_purifier_stands_behind_comes_first(tiny_model, batch):
    noise = GaussianNoise(snr_db=10, bounds=WAVEFORM)
    purifier = Halved()
    purifier.before = noise
    defended = DefendedModel(tiny_model, purifier, generator=seeded())
    noisy = tiny_model.to_input(noise.purify(batch, generator=seeded()))
    expected = purifier.purify(noisy, generator=seeded()).x
    assert torch.allclose(defended.to_input(batch).x, expected)
    with pytest.raises(InputError, match="bypasses"):
        defended.without_front_end()
