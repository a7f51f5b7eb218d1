"""Attacks on systems of enrolled voices: PLDA, open sets, and systems that are very sure."""

from __future__ import annotations

import pytest
import torch

from nip_audio.attacks.objectives import Identification, Objective, OpenSetIdentification
from nip_audio.attacks.registry import make_attack
from nip_audio.core.adapter import Batch
from nip_audio.core.model import CosineHead
from nip_audio.models.plda import PldaHead

EPS = 0.002


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch() -> Batch:
    x = 0.2 * (torch.rand(2, 9000, generator=seeded(7)) - 0.5)
    return Batch(x, torch.tensor([9000, 8000]))


@torch.no_grad()
def test_enrolled_plda_system_is_attacked_white_box(tiny_model, batch, plda, six_dim_voices):
    """Its ratios are also attacked behind a threshold: to be accepted, and to be rejected."""
    voices = six_dim_voices[0].float().reshape(12, 5, 6)[:3]
    system = tiny_model.with_head(PldaHead(plda, voices), output_kind="llr")
    own = system.predict(batch)
    item = torch.arange(2)
    clean = system.scores(batch)
    attack = make_attack("pgd", eps=EPS)

    def scores_after(objective: Objective) -> torch.Tensor:
        return system.scores(attack(objective, batch, generator=seeded()).batch)

    assert (scores_after(Identification(system, own)) < clean)[item, own].all()
    low, high = float(clean.max()) - 1.0, float(clean.max()) + 1.0
    leave = OpenSetIdentification(system, own, threshold=low)
    assert (scores_after(leave) < clean)[item, own].all()
    enter = OpenSetIdentification(system, torch.tensor([3, 3]), threshold=high)
    assert (scores_after(enter).max(dim=1).values > clean.max(dim=1).values).all()
    target = (own + 1) % 3
    reach = OpenSetIdentification(system, target, threshold=high, targeted=True)
    assert (scores_after(reach) > clean)[item, target].all()


@pytest.mark.parametrize("goal", ["accept", "reject"])
def test_open_set_attack_changes_the_systems_own_decision(tiny_model, batch, goal):
    scores = tiny_model.scores(batch).detach()
    best, own = scores.max(dim=1)
    step = 1e-3 if goal == "accept" else -1e-3
    for index in range(2):
        threshold = float(best[index]) + step
        label = torch.tensor([3]) if goal == "accept" else own[index : index + 1]
        objective = OpenSetIdentification(tiny_model, label, threshold=threshold)
        assert not objective.succeeded(batch.item(index)).any()
        result = make_attack("pgd", eps=0.01)(objective, batch.item(index), generator=seeded())
        assert result.succeeded.all()


def test_a_sure_system_is_attacked_like_an_unsure_one(tiny_model, batch):
    """At 10⁶ a softmax in float32 is flat: its gradient is 0, and nothing would be moved."""
    head = CosineHead(torch.randn(2, 6, generator=seeded(8)))
    moved = []
    for scale in (1.0, 1e6):
        system = tiny_model.with_head(head, scale=scale)
        objective = Identification(system, system.predict(batch))
        moved.append(make_attack("fgsm", eps=EPS)(objective, batch, generator=seeded()).batch.x)
    assert (moved[0] == moved[1]).float().mean() > 0.999
    assert (moved[1] != batch.masked()).float().mean() > 0.9
