"""The universal perturbation by signs of gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nip_audio.attacks.objectives import Identification, Verification
from nip_audio.attacks.universal import UniversalPerturbation
from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import AttackError

WIDTH = 40


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Linear(nn.Module):
    """Logits that are weighted sums of the input, of whatever length."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, WIDTH, generator=seeded(4)))

    def forward(self, x, lengths=None):
        return x @ self.weight[:, : x.shape[-1]].T


def model_of(classes: int) -> InstrumentedModel:
    labels = tuple("abcdef"[:classes])
    return InstrumentedModel(
        Linear(classes), head=nn.Identity(), labels=labels, bounds=Bounds(-1.0, 1.0)
    ).eval()


def batch_of(count: int, *, lengths: list[int] | None = None) -> Batch:
    x = 0.5 * (2 * torch.rand(count, WIDTH, generator=seeded(5)) - 1)
    return Batch(x, None if lengths is None else torch.tensor(lengths))


def test_it_is_the_exact_universal_direction_of_a_linear_model():
    """Of two classes, the sign of the difference of their weights lowers every margin most."""
    model, batch = model_of(2), batch_of(9)
    apart = (model.network.weight[1] - model.network.weight[0]).detach()
    batch = Batch(batch.x[(batch.x @ apart) < 0])  # all of class 0
    count = len(batch)
    assert count > 2
    needed = float(-(batch.x @ apart).min() / apart.abs().sum())
    objective = Identification(model, torch.zeros(count, dtype=torch.long))
    for factor, reached in ((1.02, True), (0.98, False)):
        attack = UniversalPerturbation(factor * needed, mini_batch=2)
        result = attack(objective, batch, generator=seeded())
        assert bool(result.succeeded.all()) == reached
        delta = result.batch.x - batch.x
        if not reached:  # items that hold out pull to the very end
            best = factor * needed * apart.sign()
            torch.testing.assert_close(delta, best.expand_as(delta), atol=1e-6, rtol=0)


def test_items_that_give_in_leave_the_perturbation_to_the_others():
    """One item is far from the decision in its own direction, a dozen are near in another."""
    model = model_of(3)
    weight = torch.zeros(3, WIDTH)
    weight[1, :20], weight[2, 20:] = 1.0, 1.0
    model.network.weight.data = weight
    x = torch.zeros(13, WIDTH)
    x[:12, :20], x[:12, 20:] = -0.01, -1.0
    x[12, :20], x[12, 20:] = -1.0, -0.09
    objective = Identification(model, torch.zeros(13, dtype=torch.long))
    result = UniversalPerturbation(0.1)(objective, Batch(x), generator=seeded())
    assert result.succeeded.all()


def test_it_stays_in_bounds_and_the_same_for_the_same_seed():
    model, batch = model_of(3), batch_of(6, lengths=[40, 40, 39, 38, 20, 40])
    batch.x[0, :5] = 1.0
    objective = Identification(model, model.predict(batch))
    attack = UniversalPerturbation(0.1, steps=7, mini_batch=2)
    first, again, other = (attack(objective, batch, generator=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first.batch.x, again.batch.x)
    assert not torch.equal(first.batch.x, other.batch.x)
    assert first.linf.max() <= 0.1 * (1 + 1e-4)
    assert first.batch.x.abs().max() <= 1.0
    assert first.batch.x[4, 20:].eq(0).all()
    delta = first.batch.x - batch.masked()
    torch.testing.assert_close(delta[4, 5:20], delta[1, 5:20])  # one for all, whatever the length
    assert first.gradients == pytest.approx(7 * 2 / 6)


def test_each_target_has_a_perturbation_that_moves_towards_it():
    model, batch = model_of(4), batch_of(12)
    target = torch.arange(12) % 3
    objective = Identification(model, target, targeted=True)
    result = UniversalPerturbation(0.4)(objective, batch, generator=seeded())
    delta = result.batch.x - batch.x
    for one in range(3):
        mine = delta[target == one]
        torch.testing.assert_close(mine, mine[:1].expand_as(mine), atol=1e-6, rtol=0)
    assert not torch.equal(delta[0], delta[1])
    before, after = (model.scores(b)[torch.arange(12), target] for b in (batch, result.batch))
    assert (after > before).all()
    assert int(result.succeeded.sum()) > int(objective.succeeded(batch).sum())


def test_items_that_claim_different_voices_share_one():
    model, batch = model_of(4), batch_of(5)
    references = torch.randn(5, 4, generator=seeded(8))
    objective = Verification(model, references, threshold=0.9, goal="accept")
    result = UniversalPerturbation(0.2)(objective, batch, generator=seeded())
    delta = result.batch.x - batch.x
    torch.testing.assert_close(delta, delta[:1].expand_as(delta), atol=1e-6, rtol=0)
    before, after = (objective.scores(b).mean() for b in (batch, result.batch))
    assert after > before


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"eps": 8}, "eps is 8, expected more than 0"),
        ({"eps": 0.1, "steps": 0}, "steps is 0, mini_batch 25 and step_share 0.1"),
        ({"eps": 0.1, "mini_batch": 0}, "mini_batch 0 and"),
        ({"eps": 0.1, "step_share": 0.0}, "step_share 0.0, expected"),
    ],
)
def test_senseless_settings_are_an_error(settings, match):
    with pytest.raises(AttackError, match=match):
        UniversalPerturbation(**settings)
