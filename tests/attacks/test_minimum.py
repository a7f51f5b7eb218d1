from __future__ import annotations

import pytest
import torch
from torch import nn

from nip_audio.attacks.decision import (
    AdditiveUniformNoise,
    Boundary,
    GrowingUniformNoise,
    Pointwise,
)
from nip_audio.attacks.minimum import CarliniWagner, DeepFool
from nip_audio.attacks.objectives import Identification, Verification
from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import AttackError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Halfspaces(nn.Module):
    """Logits (0, w·x − b): the smallest change that fools is known."""

    weight = torch.tensor([3.0, 4.0, 0.0, 0.0])
    offset = 0.5

    def forward(self, x, lengths=None):
        reached = x.flatten(1) @ self.weight.to(x) - self.offset
        return torch.stack([torch.zeros_like(reached), reached], dim=1)


@pytest.fixture
def model() -> InstrumentedModel:
    return InstrumentedModel(Halfspaces(), head=nn.Identity(), bounds=Bounds(-1.0, 1.0)).eval()


@pytest.fixture
def batch() -> Batch:
    return Batch(torch.tensor([[0.0, 0.0, 0.1, 0.1], [-0.1, 0.05, 0.3, -0.2]]))


def distance(batch: Batch) -> torch.Tensor:
    """Of each item to the boundary, in L2."""
    return (0.5 - batch.x @ Halfspaces.weight).abs() / 5


@pytest.mark.parametrize(
    ("attack", "slack"),
    [
        (DeepFool(), 1.03),
        (CarliniWagner(steps=200, learning_rate=0.01, initial_const=0.01), 1.1),
        (Boundary(steps=3000, queries=4000), 1.3),
    ],
    ids=lambda a: getattr(a, "name", ""),
)
def test_finds_nearly_the_smallest_change(model, batch, attack, slack):
    result = attack(Identification(model, model.predict(batch)), batch, generator=seeded())
    assert result.succeeded.all()
    assert (result.l2 >= distance(batch) * 0.999).all()
    assert (result.l2 <= distance(batch) * slack).all()


def test_cw_is_sure_by_as_much_as_is_asked(model, batch):
    attack = CarliniWagner(steps=200, learning_rate=0.01, initial_const=0.01, confidence=0.3)
    result = attack(Identification(model, model.predict(batch)), batch, generator=seeded())
    logits = model.scores(result.batch)
    assert (logits[:, 1] - logits[:, 0] >= 0.29).all()


def test_pointwise_changes_no_value_that_need_not_be(model, batch):
    result = Pointwise(queries=500)(
        Identification(model, model.predict(batch)), batch, generator=seeded()
    )
    assert result.succeeded.all()
    # the last two values count for nothing
    assert torch.equal(result.batch.x[:, 2:], batch.x[:, 2:])


@pytest.mark.parametrize(
    "attack",
    [
        Boundary(steps=50),
        Pointwise(),
        DeepFool(),
        CarliniWagner(steps=5),
        AdditiveUniformNoise(0.01, queries=5),
    ],
    ids=lambda a: a.name,
)
def test_what_is_fooled_already_stays_as_it_is(model, batch, attack):
    wrong = Identification(model, 1 - model.predict(batch))
    result = attack(wrong, batch, generator=seeded())
    assert torch.equal(result.batch.x, batch.x)
    assert result.succeeded.all()


class Stubborn(Halfspaces):
    """Nothing within the bounds fools it."""

    offset = 100.0


@pytest.mark.parametrize(
    "attack",
    [
        Boundary(steps=50),
        Pointwise(),
        CarliniWagner(steps=5),
        AdditiveUniformNoise(0.01, queries=5),
    ],
    ids=lambda a: a.name,
)
def test_what_cannot_be_fooled_stays_as_it_is(batch, attack):
    model = InstrumentedModel(Stubborn(), head=nn.Identity(), bounds=Bounds(-1.0, 1.0)).eval()
    result = attack(Identification(model, model.predict(batch)), batch, generator=seeded())
    assert torch.equal(result.batch.x, batch.x)
    assert not result.succeeded.any()


def test_cw_never_takes_silence_for_an_example(model):
    """Foolbox returns zeros for what it did not fool, and zeros are another class here."""
    batch = Batch(torch.tensor([[0.5, 0.5, 0.1, 0.1], [0.1, 0.049, 0.0, 0.0]]))
    objective = Identification(model, model.predict(batch))
    silence = batch.with_x(torch.zeros_like(batch.x))
    assert objective.succeeded(silence).tolist() == [True, False]
    weak = CarliniWagner(steps=20, binary_search_steps=3, learning_rate=1e-4, initial_const=1.0)
    result = weak(objective, batch, generator=seeded())
    assert result.succeeded.tolist() == [False, True]
    assert torch.equal(result.batch.x[0], batch.x[0])
    assert 0 < result.l2[1] < 0.01


def test_cw_goes_on_from_what_is_fooled_but_not_as_surely_as_asked(model):
    batch = Batch(torch.tensor([[0.11, 0.06, 0.0, 0.0]]))  # over the boundary by 0.07
    attack = CarliniWagner(steps=100, learning_rate=0.01, initial_const=1.0, confidence=0.3)
    objective = Identification(model, 1 - model.predict(batch))
    result = attack(objective, batch, generator=seeded())
    logits = model.scores(result.batch)
    assert (logits[:, 1] - logits[:, 0] >= 0.29).all()


@pytest.mark.parametrize("attack", [Boundary(steps=500), Pointwise()], ids=lambda a: a.name)
def test_queries_end_where_they_are_capped(model, batch, attack):
    capped = type(attack)(queries=40)
    result = capped(Identification(model, model.predict(batch)), batch, generator=seeded())
    assert 30 <= result.queries <= 42
    assert result.succeeded.all()


def test_uniform_noise_fools_what_is_near_the_boundary(model):
    near = Batch(torch.tensor([[0.0999, 0.05, 0.0, 0.0], [-0.5, -0.5, 0.0, 0.0]]))
    attack = AdditiveUniformNoise(0.01, queries=50)
    result = attack(Identification(model, model.predict(near)), near, generator=seeded())
    assert result.succeeded.tolist() == [True, False]
    assert result.linf.max() <= 0.01


def test_growing_noise_stops_at_the_first_size_that_fools(model):
    """The first item needs less noise than the second, and none is spent on what is fooled."""
    near = Batch(torch.tensor([[0.0999, 0.05, 0.0, 0.0], [-0.5, -0.5, 0.0, 0.0]]))
    attack = GrowingUniformNoise(steps=200)
    result = attack(Identification(model, model.predict(near)), near, generator=seeded())
    assert result.succeeded.tolist() == [True, True]
    assert result.linf[0] < result.linf[1]
    assert result.queries < 200
    wrong = Identification(model, 1 - model.predict(near))
    untouched = attack(wrong, near, generator=seeded())
    assert torch.equal(untouched.batch.x, near.x)
    assert untouched.queries <= 2


@pytest.mark.parametrize("most", [0.0, 1.5])
def test_growing_noise_has_a_largest_size(model, most):
    with pytest.raises(AttackError, match="most is .* above 0 and at most 1"):
        GrowingUniformNoise(most=most)
    near = Batch(torch.tensor([[-0.5, -0.5, 0.0, 0.0]]))
    small = GrowingUniformNoise(steps=20, most=0.01)
    result = small(Identification(model, model.predict(near)), near, generator=seeded())
    assert result.succeeded.tolist() == [False]
    assert torch.equal(result.batch.x, near.x)


@pytest.mark.parametrize(
    "attack", [DeepFool(steps=5), Boundary(steps=20), Pointwise(queries=50)], ids=lambda a: a.name
)
def test_targets_among_several_classes_are_refused_but_two_are_not(tiny_model, attack):
    clip = Batch(0.2 * (torch.rand(2, 4000, generator=seeded(3)) - 0.5))
    targeted = Identification(tiny_model, torch.tensor([0, 1]), targeted=True)
    with pytest.raises(
        AttackError, match=f"{attack.name} cannot aim at a target .* use pgd, cw or fak"
    ):
        attack(targeted, clip, generator=seeded())
    references = torch.randn(2, 6, generator=seeded(1))
    accept = Verification(tiny_model, references, threshold=0.2, goal="accept")
    result = attack(accept, clip, generator=seeded())
    assert torch.equal(result.succeeded, accept.succeeded(result.batch))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: DeepFool(steps=0), "expected ≥ 1, ≥ 2 and ≥ 0"),
        (lambda: CarliniWagner(learning_rate=0.0), "C&W got .* expected steps ≥ 1"),
        (lambda: Boundary(steps=0), "steps is 0"),
        (lambda: Pointwise(queries=0), "queries is 0"),
        (lambda: AdditiveUniformNoise(8.0), "8/255 is 0.0314"),
    ],
)
def test_senseless_settings_are_an_error(make, match):
    with pytest.raises(AttackError, match=match):
        make()


def test_uniform_noise_stays_within_eps_however_its_largest_value_falls(model, batch):
    """Foolbox scales noise by its largest value; among four values the smallest may be larger."""
    attack = AdditiveUniformNoise(eps=0.45, queries=40)  # the contract raises if ε is exceeded
    for seed in range(5):
        objective = Identification(model, model.predict(batch))
        result = attack(objective, batch, generator=seeded(seed))
        assert (result.linf <= 0.45 + 1e-6).all()
