from __future__ import annotations

import pytest
import torch
from torch import nn

from nip_audio.attacks.neuron import NeuronAttack, head_influence
from nip_audio.attacks.objectives import Identification, OpenSetIdentification, Verification
from nip_audio.core.adapter import Batch
from nip_audio.core.influence import linear_influence
from nip_audio.errors import AttackError, InputError
from tests.tolerance import assert_same_but_for_signs

EPS = 0.02


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch() -> Batch:
    return Batch(0.2 * (torch.rand(3, 6000, generator=seeded(7)) - 0.5))


def test_influence_through_a_linear_head_is_the_closed_form():
    head = nn.Linear(5, 3)
    phi = torch.randn(4, 5, generator=seeded(1)).requires_grad_(True)
    target = torch.tensor([0, 2, 1, 1])
    got = head_influence(head, phi, target)
    expected = linear_influence(phi, head.weight, head.bias, target=target)
    torch.testing.assert_close(got, expected)
    (gradient,) = torch.autograd.grad(got.square().sum(), phi)
    by_hand = 2 * head.weight[target].square() * phi
    torch.testing.assert_close(gradient, by_hand)


@pytest.mark.parametrize("method", ["s-ala", "r-ala"])
def test_one_step_follows_the_papers_loss(tiny_model, batch, method):
    own = tiny_model.predict(batch)
    objective = Identification(tiny_model, own)
    attack = NeuronAttack(method, EPS, steps=1, front=1, tail=1)
    result = attack(objective, batch, generator=seeded(3))
    generator = seeded(3)
    torch.randint(2**31, (1,), generator=generator)  # the base class seeds global generators
    x = (batch.x + EPS * (2 * torch.rand(batch.x.shape, generator=generator) - 1)).clamp(-1, 1)
    before = head_influence(tiny_model.head, tiny_model.embed(batch), own).detach()
    x = x.requires_grad_(True)
    embedding = tiny_model.embed(batch.with_x(x))
    logits = tiny_model.logits(tiny_model.head(embedding))
    wrong = nn.functional.cross_entropy(logits, own, reduction="none")
    change = (head_influence(tiny_model.head, embedding, own) - before).square()
    remaining = before.argsort(dim=1, descending=True)[:, 1:-1]
    gain = {
        "s-ala": wrong - change.mean(1),
        "r-ala": wrong + change.gather(1, remaining).mean(1),
    }[method]
    (gradient,) = torch.autograd.grad(gain.sum(), x)
    x = x.detach() + 0.2 * EPS * gradient.sign()
    expected = (batch.x + (x - batch.x).clamp(-EPS, EPS)).clamp(-1, 1)
    assert_same_but_for_signs(result.batch.x, expected)
    assert result.queries == 1 + 1  # the clean input, and every step
    assert result.gradients == 1


def test_one_keeps_influence_and_the_other_changes_it(tiny_model, batch):
    own = tiny_model.predict(batch)
    before = head_influence(tiny_model.head, tiny_model.embed(batch), own).detach()

    def change(method: str, weight: float) -> float:
        attack = NeuronAttack(method, EPS, steps=8, weight=weight, front=1, tail=1)
        x = attack(Identification(tiny_model, own), batch, generator=seeded()).batch
        after = head_influence(tiny_model.head, tiny_model.embed(x), own).detach()
        return float((after - before).square().mean())

    assert change("s-ala", 0.0) < change("r-ala", 0.0)


@pytest.mark.parametrize("method", ["s-ala", "r-ala"])
def test_the_label_loses(tiny_model, batch, method):
    own = tiny_model.predict(batch)
    attack = NeuronAttack(method, EPS, weight=100.0, front=1, tail=1)
    x = attack(Identification(tiny_model, own), batch, generator=seeded()).batch
    item = torch.arange(3)
    clean = tiny_model.scores(batch).softmax(1)[item, own]
    assert (tiny_model.scores(x).softmax(1)[item, own] < clean).all()


def test_other_goals_are_refused(tiny_model, batch):
    attack = NeuronAttack("s-ala", EPS)
    references = torch.randn(3, 6, generator=seeded(1))
    verification = Verification(tiny_model, references, threshold=0.2, goal="accept")
    targeted = Identification(tiny_model, torch.tensor([0, 1, 2]), targeted=True)
    # a label of the open set may be "none of them", of which the head has no score
    open_set = OpenSetIdentification(tiny_model, torch.tensor([3, 3, 3]), threshold=0.99)
    for objective in (verification, targeted, open_set):
        with pytest.raises(AttackError, match="s-ala is for untargeted closed-set identification"):
            attack(objective, batch, generator=seeded())


def test_embedding_too_small_for_front_and_tail_is_an_error(tiny_model, batch):
    objective = Identification(tiny_model, tiny_model.predict(batch))
    with pytest.raises(InputError, match="front = 5 and tail = 5 of 6 neurons"):
        NeuronAttack("r-ala", EPS)(objective, batch, generator=seeded())


@pytest.mark.parametrize("options", [{"steps": 0}, {"step_share": 0}, {"weight": -1}])
def test_senseless_settings_are_an_error(options):
    with pytest.raises(AttackError, match="expected ≥ 1, > 0 and ≥ 0"):
        NeuronAttack("r-ala", EPS, **options)
    with pytest.raises(AttackError, match="method is 'ala'"):
        NeuronAttack("ala", EPS)
