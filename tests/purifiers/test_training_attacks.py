from __future__ import annotations

import pytest
import torch

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.purifiers.training_attacks import FAMILIES, ModelUnderAttack, attack_once

BALLS = ("gradient", "score", "universal")  # ε bounds every value


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def victim_of(model: InstrumentedModel, *, level: str) -> ModelUnderAttack:
    x = 0.2 * (torch.rand(4, 4000, generator=seeded(3)) - 0.5)
    batch = Batch(x, torch.tensor([4000, 4000, 4000, 3200]))
    batch = batch.with_x(batch.masked())
    if level == "input":
        batch, model = model.to_input(batch), model.without_front_end()
    with torch.no_grad():
        embeddings = model.embed(batch)
        named = None if model.head is None else model.score_embeddings(embeddings).argmax(dim=1)
    return ModelUnderAttack(model.requires_grad_(False), batch, embeddings, named)


@pytest.mark.parametrize("level", ["raw", "input"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("named", [True, False], ids=["with head", "embeds only"])
def test_every_family_harms_within_bounds(tiny_model, embedding_model, family, level, named):
    model = tiny_model if named else embedding_model
    victim = victim_of(model, level=level)
    eps = torch.full((4,), 0.05)
    x = attack_once(victim, family, eps, by_class=named, generator=seeded(1))

    clean = victim.batch.x
    assert x.shape == clean.shape
    assert not x.requires_grad
    assert x.min() >= victim.model.bounds.low
    assert x.max() <= victim.model.bounds.high
    padding = int(victim.batch.lengths[3])
    assert not x[3, ..., padding:].any()
    with torch.no_grad():
        before, after = (victim.loss(v, by_class=named).mean() for v in (clean, x))
    left_alone = family in ("minimum", "decision") and torch.equal(x, clean)
    assert after > before or left_alone
    if family in BALLS:
        assert (x - clean).abs().max() <= 0.05 + 1e-6
    if family == "sparse":
        assert 0 < (x != clean).flatten(1).sum(dim=1).max() <= 0.04 * clean[0].numel()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_generator_gives_the_same_attack(tiny_model, family):
    victim = victim_of(tiny_model, level="input")
    eps = torch.full((4,), 0.05)
    first, second, other = (
        attack_once(victim, family, eps, by_class=True, generator=seeded(s)) for s in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("family", ["minimum", "decision"])
def test_the_smallest_change_fools_and_is_no_larger_than_needed(tiny_model, family):
    victim = victim_of(tiny_model, level="input")
    x = attack_once(victim, family, torch.full((4,), 0.02), by_class=True, generator=seeded(1))
    fooled = victim.fooled(x)
    assert fooled.any()
    # an item that nothing fools is left alone
    changed = (x != victim.batch.x).flatten(1).any(dim=1)
    assert torch.equal(changed, fooled)
    # halved to a 64th of the way, and at most half more than that
    half = victim.batch.x + 0.5 * (x - victim.batch.x)
    assert (victim.fooled(half) & fooled).sum() <= 1  # a boundary is not always smooth


def test_strength_is_each_items_own(tiny_model):
    victim = victim_of(tiny_model, level="input")
    eps = torch.tensor([0.01, 0.02, 0.03, 0.04])
    x = attack_once(victim, "gradient", eps, by_class=True, generator=seeded(1))
    changed = (x - victim.batch.x).flatten(1).abs().amax(dim=1)
    assert (changed <= eps + 1e-6).all()
    assert (changed >= 0.9 * eps).all()
