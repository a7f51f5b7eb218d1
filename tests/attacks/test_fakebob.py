from __future__ import annotations

import pytest
import torch
from torch import nn

from nip_audio.attacks.base import System
from nip_audio.attacks.enrolment import EnrolmentSide
from nip_audio.attacks.fakebob import Fakebob, estimate_threshold, nes_gradient
from nip_audio.attacks.objectives import Identification, OpenSetIdentification, Verification
from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import AttackError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Sure(nn.Module):
    """Logits so far apart that a softmax would be flat."""

    def forward(self, x, lengths=None):
        return torch.stack([1e4 * x[:, 0] + 1e3, x[:, 1]], dim=1)


@pytest.fixture
def sure() -> InstrumentedModel:
    return InstrumentedModel(Sure(), head=nn.Identity(), bounds=Bounds(-1.0, 1.0)).eval()


def test_estimate_points_where_the_margin_rises(sure):
    batch = Batch(torch.zeros(2, 4))
    system = System(Identification(sure, torch.tensor([0, 0])), batch)
    found = nes_gradient(system, batch.x, [0, 1], samples=2000, sigma=0.001, generator=seeded())
    true = torch.tensor([-1e4, 1.0, 0.0, 0.0]).expand(2, 4)
    assert (torch.cosine_similarity(found, true) > 0.95).all()
    assert system.queries == 2 * 2000
    assert system.gradients == 0


def test_items_stop_one_by_one_and_are_counted_exactly(sure):
    x = torch.tensor([[-0.2, 0.0, 0.0, 0.0], [-0.0975, 0.0, 0.0, 0.0]])  # −0.1 is the boundary
    objective = Identification(sure, torch.tensor([0, 0]))
    attack = Fakebob(0.01, steps=50, samples=20)
    result = attack(objective, Batch(x), generator=seeded())
    assert result.succeeded.all()
    assert torch.equal(result.batch.x[0], x[0])  # was fooled as it was
    assert 0 < result.linf[1] <= 0.01
    iterations = round(float(result.linf[1]) / 0.001)
    # the first item is judged once, the second before every step and after the last; what is
    # fooled is asked once more, and answers the same
    assert result.queries * 2 == 2 + iterations * (1 + 20) + 2


class Fickle(nn.Module):
    """Sure, but one answer in four is that of somebody else."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = seeded()

    def forward(self, x, lengths=None):
        luck = torch.rand(len(x), generator=self.generator) < 0.25
        right = torch.stack([torch.full_like(x[:, 0], 1.0), x[:, 1]], dim=1)
        return torch.where(luck[:, None], right.flip(1), right)


def test_one_lucky_answer_of_a_random_system_is_no_success():
    system = InstrumentedModel(Fickle(), head=nn.Identity(), bounds=Bounds(-1.0, 1.0)).eval()
    objective = Identification(system, torch.zeros(40, dtype=torch.long))
    batch = Batch(torch.full((40, 4), 0.5))
    result = Fakebob(0.01, steps=3, samples=4)(objective, batch, generator=seeded())
    # a majority of five answers is wrong for one item in ten, a single one for one in four
    unchanged = (result.linf == 0).float().mean()
    assert unchanged < 0.2


def test_steps_end_it_and_the_rate_falls_without_progress(sure):
    x = torch.tensor([[0.5, 0.0, 0.0, 0.0]])
    result = Fakebob(0.002, steps=7, samples=4)(
        Identification(sure, torch.tensor([0])), Batch(x), generator=seeded()
    )
    assert not result.succeeded.any()
    assert result.queries == 7 * (1 + 4)
    assert result.linf.max() <= 0.002 + 1e-7


def test_fools_a_network_and_reaches_a_target(tiny_model):
    batch = Batch(0.2 * (torch.rand(2, 4000, generator=seeded(7)) - 0.5))
    own = tiny_model.predict(batch)
    scores = tiny_model.scores(batch).detach()
    item = torch.arange(2)
    attack = Fakebob(0.02, steps=10)
    away = attack(Identification(tiny_model, own), batch, generator=seeded()).batch
    target = (own + 1) % 3
    towards = attack(
        Identification(tiny_model, target, targeted=True), batch, generator=seeded()
    ).batch

    def lead(batch: Batch, label: torch.Tensor) -> torch.Tensor:
        got = tiny_model.scores(batch).detach()
        return got[item, label] - got.scatter(1, label[:, None], -9.0).amax(1)

    assert scores.shape == (2, 3)
    assert (lead(away, own) < lead(batch, own)).all()
    assert (lead(towards, target) > lead(batch, target)).all()


def test_open_set_stranger_is_taken_for_somebody(tiny_model):
    batch = Batch(0.2 * (torch.rand(1, 4000, generator=seeded(7)) - 0.5))
    best = float(tiny_model.scores(batch).detach().max())
    stranger = OpenSetIdentification(tiny_model, torch.tensor([3]), threshold=best + 1e-3)
    assert int(stranger.decide(batch)) == 3
    result = Fakebob(0.02, steps=10)(stranger, batch, generator=seeded())
    assert result.succeeded.all()
    assert int(stranger.decide(result.batch)) < 3


class Project(nn.Module):
    """The cosine to (1, 0) rises with the mean."""

    def forward(self, x, lengths=None):
        return torch.stack([x.mean(dim=1), torch.full_like(x[:, 0], 0.05)], dim=1)


class Overheard(Verification):
    """Keeps the scores that a lone recording was given."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.heard: list[float] = []

    def scores(self, batch):
        scores = super().scores(batch)
        if len(scores) == 1:
            self.heard.append(float(scores))
        return scores


def projection(threshold: float, goal: str = "accept") -> Overheard:
    model = InstrumentedModel(Project(), bounds=Bounds(-1.0, 1.0)).eval()
    reference = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    return Overheard(model, reference, threshold=threshold, goal=goal)


SILENCE = Batch(torch.zeros(1, 50, dtype=torch.float64))


def test_threshold_is_found_without_being_told():
    near, far = projection(0.3), projection(0.6)
    for objective in (near, far):
        assert not objective.succeeded(SILENCE).any()
        objective.heard.clear()
        found = estimate_threshold(objective, SILENCE, eps=0.2, generator=seeded(), steps=2000)
        assert objective.threshold <= found.score < objective.threshold + 0.02
        asked = len(objective.heard) - 1  # the last is heard twice: for the word and for the score
        assert found.queries == asked + 50 * (asked - 1)
    # whatever the threshold is, the search does the same until it is told that it is accepted
    common = len(near.heard) - 1
    assert far.heard[:common] == pytest.approx(near.heard[:common], abs=1e-9)


def test_threshold_out_of_reach_is_none_at_the_full_price():
    found = estimate_threshold(projection(2.0), SILENCE, eps=0.1, generator=seeded(), steps=5)
    assert found.score is None
    assert found.queries == 5 * (50 + 1)


@pytest.mark.parametrize("side", [Verification, EnrolmentSide])
def test_threshold_of_a_network_is_found_on_either_side(embedding_model, side):
    batch = Batch(0.2 * (torch.rand(1, 4000, generator=seeded(7)) - 0.5))
    voice = torch.randn(1, 6, generator=seeded(8))
    embedding_model.requires_grad_(False)
    clean = float(side(embedding_model, voice, threshold=0.0, goal="accept").scores(batch))
    objective = side(embedding_model, voice, threshold=clean + 2e-3, goal="accept")
    found = estimate_threshold(objective, batch, eps=0.01, generator=seeded(), steps=40)
    assert objective.threshold <= found.score < objective.threshold + 2e-3


def test_threshold_is_sought_from_below_with_one_recording():
    remedy = "pass one recording and an objective with goal 'accept'"
    with pytest.raises(AttackError, match=f"got 1 recordings and goal 'reject'.*{remedy}"):
        estimate_threshold(projection(0.3, "reject"), SILENCE, eps=0.1, generator=seeded())
    two = Batch(SILENCE.x.expand(2, -1))
    with pytest.raises(AttackError, match=f"got 2 recordings.*{remedy}"):
        estimate_threshold(projection(0.3), two, eps=0.1, generator=seeded())


@pytest.mark.parametrize(
    "options", [{"samples": 3}, {"steps": 0}, {"sigma": 0.0}, {"momentum": 1.0}, {"patience": 0}]
)
def test_senseless_settings_are_an_error(options):
    with pytest.raises(AttackError, match="expected"):
        Fakebob(0.002, **options)
