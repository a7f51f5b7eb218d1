from __future__ import annotations

import pytest
import torch

from nip_audio.core.adapter import Batch, Bounds, length_mask, masked_mean
from nip_audio.errors import InputError
from nip_audio.purifiers.quantization import Quantization


def test_bounds_clip_and_refuse_an_empty_range():
    assert Bounds(-1, 1).clip(torch.tensor([-2.0, 0.5, 3.0])).tolist() == [-1.0, 0.5, 1.0]
    with pytest.raises(InputError, match=r"bounds are \(1, 1\), expected low < high"):
        Bounds(1, 1)


def test_length_mask_by_hand():
    expected = [[True, False, False], [True, True, True]]
    assert length_mask(torch.tensor([1, 3]), 3).tolist() == expected


@pytest.mark.parametrize("extra", [(), (2,), (2, 3)])
def test_masked_mean_ignores_padding_whatever_the_axes_between(extra):
    x = torch.rand(2, 4, *extra, 5)
    got = masked_mean(x, torch.tensor([5, 2]))
    expected = torch.stack([x[0].flatten(1).mean(1), x[1, ..., :2].flatten(1).mean(1)])
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(masked_mean(x, None), x.flatten(2).mean(2))


@pytest.mark.parametrize(
    ("x", "lengths", "message"),
    [
        (torch.zeros(2, 3, dtype=torch.int64), None, "torch.int64, expected floating values"),
        (torch.zeros(3), None, "expected floating values"),
        (torch.zeros(0, 3), None, "items ≥ 1"),
        (torch.zeros(2, 3), torch.tensor([3]), r"expected \(2,\) integers"),
        (torch.zeros(2, 3), torch.tensor([1.0, 1.0]), r"expected \(2,\) integers"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), "lengths range 0–3, expected 1–3"),
        (torch.zeros(2, 3), torch.tensor([1, 4]), "lengths range 1–4, expected 1–3"),
    ],
)
def test_batch_refuses_parts_that_do_not_fit(x, lengths, message):
    with pytest.raises(InputError, match=message):
        Batch(x, lengths)


def test_collate_pads_with_zeros_and_item_cuts_the_padding_off():
    batch = Batch.collate([torch.ones(2, 3), torch.full((2, 5), 2.0)])
    assert batch.x.shape == (2, 2, 5)
    assert batch.x[0, :, 3:].eq(0).all()
    assert batch.lengths.tolist() == [3, 5]
    item = batch.item(0)
    assert (item.x.tolist(), item.lengths) == (torch.ones(1, 2, 3).tolist(), None)
    assert len(batch) == 2


def test_collate_keeps_float64():
    assert Batch.collate([torch.ones(3, dtype=torch.float64)]).x.dtype == torch.float64


@pytest.mark.parametrize(
    ("items", "message"),
    [([], "got no items"), ([torch.ones(2), torch.ones(0)], "lengths range 0–2")],
)
def test_collate_refuses_nothing(items, message):
    with pytest.raises(InputError, match=message):
        Batch.collate(items)


def test_masked_zeroes_the_padding_and_leaves_the_batch_alone():
    x = torch.ones(2, 3, 4)
    batch = Batch(x, torch.tensor([1, 4]))
    assert batch.masked().sum(dim=(1, 2)).tolist() == [3.0, 12.0]
    assert x.eq(1).all()
    assert Batch(x).masked() is x


def test_with_x_keeps_lengths_and_is_checked():
    batch = Batch(torch.zeros(1, 4), torch.tensor([4]))
    assert batch.with_x(torch.ones(1, 4)).lengths is batch.lengths
    with pytest.raises(InputError, match="expected 1–3"):
        batch.with_x(torch.ones(1, 3))


@pytest.mark.parametrize("given", [(-1.0, 1.0), [-1, 1], Bounds(-1.0, 1.0)])
def test_bounds_are_taken_as_a_pair_too(given):
    assert Bounds.of(given) == Bounds(-1.0, 1.0)
    assert Quantization(bits=5, level="raw", bounds=given).bounds == Bounds(-1.0, 1.0)


@pytest.mark.parametrize("given", [1.0, None, (1.0,), (0.0, 1.0, 2.0), ("low", "high")])
def test_bounds_that_are_no_pair_are_refused(given):
    with pytest.raises(InputError, match=r"expected Bounds\(low, high\) or a pair"):
        Bounds.of(given)
