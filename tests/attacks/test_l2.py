from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from nip_audio.attacks.l2 import L2Pgd
from nip_audio.attacks.objectives import Identification, Verification
from nip_audio.attacks.registry import make_attack
from nip_audio.cli import main
from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import AttackError
from nip_audio.models.plda import PldaHead

EPS = 0.1


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Halfspace(nn.Module):
    """Logits (0, w·x): the best change of a given norm is known."""

    weight = torch.tensor([3.0, 4.0, 0.0, 0.0])

    def forward(self, x, lengths=None):
        reached = x.flatten(1) @ self.weight.to(x)
        return torch.stack([torch.zeros_like(reached), reached], dim=1)


@pytest.fixture
def halfspace() -> InstrumentedModel:
    return InstrumentedModel(Halfspace(), head=nn.Identity(), bounds=Bounds(-1.0, 1.0)).eval()


@pytest.fixture
def batch() -> Batch:
    return Batch(torch.tensor([[0.01, 0.0, 0.1, 0.1], [0.02, 0.01, 0.3, -0.2]]))


@pytest.mark.parametrize(("targeted", "sign"), [(False, -1.0), (True, 1.0)])
def test_reaches_the_best_change_of_that_norm(halfspace, batch, targeted, sign):
    """From label 1 the way is against w; to label 1 it is along w, though it is there already."""
    objective = Identification(halfspace, torch.tensor([1, 1]), targeted=targeted)
    result = L2Pgd(EPS, steps=40)(objective, batch, generator=seeded())
    best = sign * EPS * Halfspace.weight / Halfspace.weight.norm()
    torch.testing.assert_close(result.batch.x - batch.x, best.expand(2, 4), atol=1e-3, rtol=0)
    assert result.gradients == 40


def test_the_norm_is_of_each_whole_item_and_padding_stays_zero(tiny_model):
    x = 0.2 * (torch.rand(2, 9000, generator=seeded(7)) - 0.5)
    batch = Batch(x, torch.tensor([9000, 6000]))
    references = torch.randn(2, 6, generator=seeded(8))
    objective = Verification(tiny_model, references, threshold=0.2, goal="accept")
    result = make_attack("pgd-l2", eps=EPS)(objective, batch, generator=seeded())
    assert (result.l2 <= EPS * (1 + 1e-4)).all()
    assert result.l2[0] >= 0.9 * EPS
    assert result.linf.max() < EPS / 2  # it is spread
    assert result.batch.x[1, 6000:].eq(0).all()
    assert (objective.scores(result.batch) > objective.scores(batch)).all()


def test_keeps_moving_where_a_plda_is_sure(tiny_model, plda):
    """Normalised gradients would vanish in a flat softmax; ``System`` keeps it from being flat."""
    x = 0.2 * (torch.rand(2, 9000, generator=seeded(7)) - 0.5)
    with torch.no_grad():
        voices = tiny_model.embed(Batch(x))

    back_end = partial(PldaHead, plda)
    # 100 nats above its threshold already
    scores = back_end(voices)(voices).diagonal()
    objective = Verification(
        tiny_model, voices, threshold=float(scores.min()) - 100, goal="accept", back_end=back_end
    )
    result = L2Pgd(EPS)(objective, Batch(x), generator=seeded())
    assert result.l2.min() >= 0.5 * EPS


def test_broken_promise_is_an_error():
    clean = torch.zeros(2, 4)
    x = clean.clone()
    x[1, :2] = 0.09  # each value is within ε, all of them are not
    with pytest.raises(AttackError, match=r"pgd-l2 made a change of norm 0.127, more than eps"):
        L2Pgd(EPS)._keep_promise(x, clean, Bounds(-1.0, 1.0))


@pytest.mark.parametrize("eps", [0.0, -0.1, float("nan"), float("inf")])
def test_senseless_eps_is_an_error(eps):
    with pytest.raises(AttackError, match="expected more than 0: the Euclidean norm of the whole"):
        make_attack("pgd-l2", eps=eps)


def test_eps_in_wrong_units_is_an_error(halfspace, batch):
    objective = Identification(halfspace, torch.tensor([1, 1]))
    with pytest.raises(AttackError, match="eps is 6400, expected at most 1 for items of this size"):
        L2Pgd(6400)(objective, batch, generator=seeded())


@pytest.mark.parametrize("options", [{"steps": 0}, {"step_share": 0.0}])
def test_senseless_steps_are_an_error(options):
    with pytest.raises(AttackError, match="expected ≥ 1 and > 0"):
        L2Pgd(EPS, **options)


def test_the_command_has_no_default_for_it(write_sound, tmp_path, capsys):
    """0.002, which is usual for a value, is nothing as a norm of the whole."""
    source, out = write_sound(), tmp_path / "out"
    assert main(["attack", str(source), "--attack", "pgd-l2", "--out", str(out)]) >= 64
    assert "pgd-l2 needs eps" in capsys.readouterr().err
    assert not out.exists()
