from __future__ import annotations

import pytest
import torch

from nip_audio.core.adapter import Batch
from nip_audio.errors import InputError
from nip_audio.models.xvector import StatisticsPool, TdnnLayer, Xvector
from tests.tolerance import assert_same_but_for_rounding, depth_of

LENGTHS = (8000, 8159, 8160, 11111, 16000)


@pytest.fixture
def waves() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [0.2 * (torch.rand(n, generator=generator) - 0.5) for n in LENGTHS]


def test_tdnn_layer_shortens_by_its_context():
    layer = TdnnLayer(3, 4, kernel=3, dilation=2)
    assert layer(torch.rand(2, 3, 10)).shape == (2, 4, 6)
    assert layer.shortening == 4


def test_statistics_by_hand():
    x = torch.tensor([[[1.0, 3.0, 100.0]], [[2.0, 2.0, 5.0]]])
    got = StatisticsPool(eps=0.0)(x, torch.tensor([2, 3]))
    torch.testing.assert_close(got, torch.tensor([[2.0, 1.0], [3.0, 2.0**0.5]]))


def test_statistics_of_a_constant_have_a_finite_gradient():
    x = torch.ones(1, 2, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(StatisticsPool()(x, torch.tensor([4])).sum(), x)
    assert gradient.isfinite().all()


def test_batch_equals_its_single_items(tiny_model, waves):
    batch = Batch.collate(waves)
    together = tiny_model.embed(batch)
    assert together.std(dim=0).min() > 0.01  # the items do differ
    for i in range(len(waves)):
        alone = tiny_model.embed(batch.item(i))
        assert_same_but_for_rounding(together[i : i + 1], alone, depth=depth_of(tiny_model))


def test_values_in_the_padding_do_not_matter_and_get_no_gradient(tiny_model, waves):
    batch = Batch.collate(waves)
    junk = batch.x.clone()
    for row, length in zip(junk, LENGTHS, strict=True):
        row[length:] = 0.8
    junk.requires_grad_(True)
    scores = tiny_model.scores(batch.with_x(junk))
    torch.testing.assert_close(scores, tiny_model.scores(batch), atol=0, rtol=0)
    (gradient,) = torch.autograd.grad(scores.sum(), junk)
    for row, length in zip(gradient, LENGTHS, strict=True):
        assert row[length:].eq(0).all()
        assert (row[:length] != 0).float().mean() > 0.5


def test_frames_of_padding_do_not_matter(tiny_xvector):
    x = torch.rand(2, 40, 60, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([60, 30])
    junk = x.clone()
    junk[1, :, 30:] = 7.0
    expected, depth = tiny_xvector(x, lengths), depth_of(tiny_xvector)
    assert_same_but_for_rounding(tiny_xvector(junk, lengths), expected, depth=depth)
    assert_same_but_for_rounding(tiny_xvector(x[1:, :, :30]), expected[1:], depth=depth)


@torch.no_grad()
def test_gain_does_not_matter_until_it_clips(tiny_model, waves):
    reference = tiny_model.embed(Batch(waves[-1][None]))
    for gain in (0.5, 2.0, 4.0):  # no band leaves −60 to 40 dB
        other = tiny_model.embed(Batch(gain * waves[-1][None]))
        torch.testing.assert_close(other, reference, atol=1e-3, rtol=1e-3)
    faint = tiny_model.embed(Batch(1e-4 * waves[-1][None]))
    assert not torch.allclose(faint, reference, atol=1e-2)


def test_evaluation_is_deterministic_and_draws_nothing(tiny_model, waves):
    batch = Batch.collate(waves)
    before = torch.get_rng_state()
    first = tiny_model.embed(batch)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(tiny_model.embed(batch), first)
    torch.set_rng_state(before)


@pytest.mark.parametrize("lengths", [None, torch.tensor([40, 14])])
def test_too_few_frames_are_an_error(tiny_xvector, lengths):
    assert tiny_xvector.min_frames == 15
    frames = 14 if lengths is None else 40
    with pytest.raises(InputError, match="an item has 14 frames, expected at least 15; use longer"):
        tiny_xvector(torch.rand(2, 40, frames), lengths)


def test_just_enough_frames_will_do(tiny_xvector):
    assert tiny_xvector(torch.rand(2, 40, 15)).isfinite().all()


def test_tap_lengths_are_those_of_the_layers(tiny_xvector):
    for layer in ("frames.0", "frames.1.conv", "frames.2", "frames.3.norm", "frames.4"):
        shapes = []
        handle = tiny_xvector.get_submodule(layer).register_forward_hook(
            lambda module, args, output, shapes=shapes: shapes.append(output.shape[2])
        )
        tiny_xvector(torch.rand(1, 40, 50))
        handle.remove()
        assert tiny_xvector.tap_lengths(layer, torch.tensor([50])).tolist() == shapes


def test_wrong_number_of_widths_is_an_error():
    with pytest.raises(InputError, match="got 3 channel counts, expected one for each of the 5"):
        Xvector(channels=[8, 8, 8])
