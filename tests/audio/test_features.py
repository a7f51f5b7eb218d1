from __future__ import annotations

import math

import pytest
import torch

from nip_audio.audio.features import LogMel
from nip_audio.core.adapter import Batch
from nip_audio.errors import InputError

LENGTHS = (8000, 8001, 8159, 8160, 12345, 16000)


@pytest.fixture
def waves() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(n, generator=generator) - 0.5 for n in LENGTHS]


def test_features_lie_in_0_1_and_padding_frames_are_zero(waves):
    loud = Batch.collate([*waves, torch.zeros(9000), torch.ones(9000), 1e-6 * waves[0]])
    features, frames = LogMel()(loud.x, loud.lengths)
    assert features.min() >= 0.0
    assert features.max() <= 1.0
    for row, count in zip(features, frames.tolist(), strict=True):
        assert row[:, count:].eq(0).all()
    assert frames[:6].tolist() == [1 + n // 160 for n in LENGTHS]
    assert features[6].eq(0).all()  # digital silence


def test_batch_equals_its_single_items(waves):
    batch = Batch.collate(waves)
    features, frames = LogMel()(batch.x, batch.lengths)
    for i, wave in enumerate(waves):
        alone, count = LogMel()(wave[None])
        assert count.item() == frames[i].item() == alone.shape[2]
        torch.testing.assert_close(features[i, :, : count.item()], alone[0], atol=1e-5, rtol=0)


def test_values_in_the_padding_do_not_matter_and_get_no_gradient(waves):
    batch = Batch.collate(waves)
    clean, _ = LogMel()(batch.x, batch.lengths)
    x = batch.x.clone()
    for row, length in zip(x, LENGTHS, strict=True):
        row[length:] = 0.9
    x.requires_grad_(True)
    features, _ = LogMel()(x, batch.lengths)
    assert torch.equal(features, clean)
    (gradient,) = torch.autograd.grad(features.sum(), x)
    for row, length in zip(gradient, LENGTHS, strict=True):
        assert row[length:].eq(0).all()
        assert row[:length].abs().sum() > 0


def test_ten_times_the_amplitude_is_20_db():
    wave = 0.01 * (torch.rand(1, 8000, generator=torch.Generator().manual_seed(0)) - 0.5)
    quiet, _ = LogMel(low_db=-100.0, high_db=100.0)(wave)
    loud, _ = LogMel(low_db=-100.0, high_db=100.0)(10 * wave)
    torch.testing.assert_close(loud - quiet, torch.full_like(loud, 0.1), atol=1e-4, rtol=0)


def test_a_tone_is_in_its_mel_band():
    time_s = torch.arange(16000) / 16000
    features, _ = LogMel()(0.5 * torch.sin(2 * math.pi * 1000 * time_s)[None])
    mel_of = lambda hz: 2595 * math.log10(1 + hz / 700)  # noqa: E731
    band = mel_of(1000) / mel_of(8000) * 41 - 1
    assert features[0].mean(dim=1).argmax().item() == pytest.approx(band, abs=1)


def test_global_generator_neither_matters_nor_moves(waves):
    before = torch.get_rng_state()
    first, _ = LogMel().eval()(waves[0][None])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(LogMel().eval()(waves[0][None])[0], first)


@pytest.mark.parametrize("shape", [(8000,), (1, 0), (1, 1, 8000)])
def test_wrong_shape_is_an_error(shape):
    with pytest.raises(InputError, match=r"expected \(batch, samples ≥ 1\)"):
        LogMel()(torch.zeros(shape))


def test_empty_range_of_decibels_is_an_error():
    with pytest.raises(InputError, match="high_db is -60.0, expected a level above low_db = -60.0"):
        LogMel(high_db=-60.0)
