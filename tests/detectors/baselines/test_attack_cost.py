from __future__ import annotations

import numpy as np
import pytest
import torch

from nip_audio.core.adapter import Batch
from nip_audio.detectors.baselines.attack_cost import AttackCost
from nip_audio.errors import InputError


@pytest.mark.parametrize(
    ("x", "steps"),
    [((0.5, 0.4), 0.1 / 0.06), ((0.5, 0.28), 0.22 / 0.06), ((0.5, 0.49), 0.01 / 0.06)],
)
def test_steps_by_hand(by_hand, item, generator, x, steps):
    """Logits 2 x: each step of 0.03 closes the gap in x by 0.06, the last one in part."""
    model = by_hand([[1.0, 0.0], [0.0, 1.0]])
    measure = AttackCost(step=0.03, most=10)
    row = measure.measure(model, item(*x), generator=generator)
    assert np.exp(row) == pytest.approx([steps], rel=1e-3)
    assert measure.suspicion(row[None]) == pytest.approx(-row)


def test_what_does_not_give_way_costs_one_more_than_the_cap(by_hand, item, generator):
    model = by_hand([[1.0, 0.0], [0.0, 1.0]])
    for most, cost in ((1, 2), (2, 0.1 / 0.06), (3, 0.1 / 0.06)):
        row = AttackCost(step=0.03, most=most).measure(model, item(0.5, 0.4), generator=generator)
        assert np.exp(row) == pytest.approx([cost], rel=1e-3)


def test_steps_stop_at_the_bounds(by_hand, item, generator):
    """Logits (2 x₀, x₁): leads 0.95, 0.65, 0.35; x₁ is at its bound then: 0.1, -0.1."""
    model = by_hand([[1.0, 0.0], [0.0, 0.5]])
    measure = AttackCost(step=0.1, most=30)
    row = measure.measure(model, item(0.85, 0.75), generator=generator)
    assert np.exp(row) == pytest.approx([3.5], rel=1e-3)


def test_a_gradient_is_followed_where_the_softmax_is_flat(by_hand, item, generator):
    """A gap of 2,000 logits: the cross-entropy's gradient would be zero in any precision."""
    model = by_hand([[2000.0, 0.0], [0.0, 2000.0]])
    row = AttackCost(step=0.1, most=10).measure(model, item(0.9, 0.4), generator=generator)
    assert np.exp(row) == pytest.approx([2.5], rel=1e-3)


def test_a_tie_costs_hardly_anything(by_hand, item, generator):
    model = by_hand([[1.0, 0.0], [0.0, 1.0]])
    row = AttackCost(step=0.03).measure(model, item(0.5, 0.5), generator=generator)
    assert np.exp(row) == pytest.approx([0.01])


def test_the_item_is_left_as_it_was(by_hand, generator):
    x = torch.tensor([[0.5, 0.4]])
    item = Batch(x)
    AttackCost(step=0.03).measure(by_hand([[1.0, 0.0], [0.0, 1.0]]), item, generator=generator)
    assert x.tolist() == [[0.5, pytest.approx(0.4)]]
    assert not x.requires_grad


@pytest.mark.parametrize("settings", [{"step": 0.0}, {"most": 0}])
def test_senseless_settings_are_an_error(settings):
    with pytest.raises(InputError, match="expected"):
        AttackCost(**settings)
