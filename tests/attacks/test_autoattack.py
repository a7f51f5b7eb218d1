"""The parts of AutoAttack, one by one, and that all four run."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nip_audio.attacks import autoattack
from nip_audio.attacks._auto_parts import (
    _checkpoints,
    apgd,
    cross_entropy,
    difference,
    fab,
    logits_ratio,
    rivals,
    to_plane,
)
from nip_audio.attacks.autoattack import AutoAttack
from nip_audio.attacks.base import System
from nip_audio.attacks.objectives import Identification, Verification
from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.model import InstrumentedModel

WIDTH = 30


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def system_of(classes: int, *, targeted: bool = False, count: int = 4) -> System:
    """A linear system, and items well inside the bounds."""
    network = nn.Linear(WIDTH, classes, bias=False)
    network.weight.data = torch.randn(classes, WIDTH, generator=seeded(4))
    network.requires_grad_(False)
    model = InstrumentedModel(
        _Alone(network),
        head=nn.Identity(),
        labels=tuple("abcdef"[:classes]),
        bounds=Bounds(-1.0, 1.0),
    ).eval()
    batch = Batch(0.5 * (2 * torch.rand(count, WIDTH, generator=seeded(5)) - 1))
    best = model.scores(batch).topk(2, dim=1).indices
    return System(Identification(model, best[:, int(targeted)], targeted=targeted), batch)


class _Alone(nn.Module):
    def __init__(self, network: nn.Linear) -> None:
        super().__init__()
        self.network = network

    def forward(self, x, lengths=None):
        return self.network(x)


def needed(system: System, target: torch.Tensor) -> torch.Tensor:
    """Smallest change (L∞) at which a target overtakes the own class of a linear system: (B,)."""
    own = system.scores(system.batch.x).argmax(dim=1)
    apart = system.objective.model.network.network.weight[target]
    apart = apart - system.objective.model.network.network.weight[own]
    return -(system.batch.x * apart).sum(dim=1) / apart.abs().sum(dim=1)


def test_the_nearest_point_of_a_plane_by_hand():
    x = torch.tensor([[0.0, 0.5, 0.0], [0.0, 0.9, 0.0], [0.0, 0.9, 0.0], [0.5, 0.0, 0.0]])
    slope = torch.tensor([[1.0, 1.0, 0.0]] * 3 + [[-2.0, 0.0, 0.0]])
    # from 0.5 to 0.9; from 0.9 to 1.4, where the second value ends at 1; out of reach; downwards
    level = torch.tensor([0.9, 1.4, 5.0, -0.6])
    change = to_plane(x, slope, level, Bounds(-1.0, 1.0))
    expected = [[0.2, 0.2, 0.0], [0.4, 0.1, 0.0], [1.0, 0.1, 0.0], [-0.2, 0.0, 0.0]]
    torch.testing.assert_close(change, torch.tensor(expected))


def test_the_ratio_by_hand():
    system = system_of(5, count=1)
    system.objective.label = torch.tensor([0])
    logits = torch.tensor([[5.0, 3.0, 2.0, 1.0, 0.0]])
    # z_t − z_y over z_1 − (z_3 + z_4) / 2
    assert float(logits_ratio(system, torch.tensor([3]))(logits)) == pytest.approx(-4 / 3.5)
    few = logits[:, :3]
    assert float(logits_ratio(system, torch.tensor([2]))(few)) == pytest.approx(-3.0)


def test_apgd_looks_at_its_progress_at_the_papers_checkpoints():
    assert sorted(_checkpoints(100))[:5] == [22, 41, 57, 70, 80]


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(("part", "classes"), [("ce", 2), ("dlr", 2), ("dlr", 5), ("fab", 5)])
def test_every_part_succeeds_exactly_where_it_can(part, targeted, classes):
    """On a linear system, each reaches the class that is second at first."""
    system = system_of(classes, targeted=targeted)
    target = rivals(system, 9)[0]
    least = needed(system, target)
    # of five classes, another one may be nearer for an untargeted goal
    for factor, reached in ((1.02, True), (0.98, False)):
        for row, eps in enumerate((factor * least).tolist()):
            one = system.part([row])
            if part == "fab":
                found, done = fab(one, difference(one, target[[row]]), eps=eps, steps=30)
            else:
                loss = cross_entropy(one) if part == "ce" else logits_ratio(one, target[[row]])
                found, done = apgd(one, loss, eps=eps, steps=100, generator=seeded())
            if reached:
                assert done.all()
                assert one.fooled(found).all()
            elif classes == 2:
                assert not done.any()
            assert (found - one.batch.x).abs().max() <= eps * (1 + 1e-5)
            assert found.abs().max() <= 1.0


@pytest.mark.parametrize(
    ("classes", "targeted", "runs"),
    [
        (5, False, ["apgd", *["apgd"] * 3, *["fab"] * 3, "square"]),
        (2, False, ["apgd", "apgd", "fab", "square"]),
        (5, True, ["apgd", "apgd", "fab", "square"]),
    ],
)
def test_all_four_parts_run_on_items_that_resist(monkeypatch, classes, targeted, runs):
    pytest.importorskip("art")
    called = []

    def recorded(name, function):
        def run(*args, **kwargs):
            called.append(name)
            return function(*args, **kwargs)

        return run

    monkeypatch.setattr(autoattack, "apgd", recorded("apgd", autoattack.apgd))
    monkeypatch.setattr(autoattack, "fab", recorded("fab", autoattack.fab))
    monkeypatch.setattr(autoattack, "attack_items", recorded("square", autoattack.attack_items))
    system = system_of(classes, targeted=targeted)
    attack = AutoAttack(1e-5, steps=2, targets=3, square_steps=2)
    result = attack(system.objective, system.batch, generator=seeded())
    assert not result.succeeded.any()
    assert torch.equal(result.batch.x, system.batch.x)
    assert called == runs


def test_later_parts_are_spared_the_items_that_gave_in(monkeypatch):
    system = system_of(5)
    seen = []

    def fab_of(rest, *args, **kwargs):
        seen.append(len(rest.batch))
        return fab(rest, *args, **kwargs)

    monkeypatch.setattr(autoattack, "fab", fab_of)
    eps = float(needed(system, rivals(system, 1)[0]).max()) * 1.02
    result = AutoAttack(eps)(system.objective, system.batch, generator=seeded())
    assert result.succeeded.all()
    assert not seen


def test_verification_has_one_rival():
    model = system_of(4).objective.model
    batch = Batch(0.5 * torch.rand(2, WIDTH, generator=seeded(1)))
    references = torch.randn(2, 4, generator=seeded(2))
    objective = Verification(model, references, threshold=0.99, goal="accept")
    assert [target.tolist() for target in rivals(System(objective, batch), 9)] == [[1, 1]]
