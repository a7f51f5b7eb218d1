from __future__ import annotations

import pytest
import torch
from torch import nn

from nip_audio.attacks.end_to_end import EndToEndPgd
from nip_audio.attacks.gradient import GradientAttack
from nip_audio.attacks.objectives import Guarded, Identification, Verification
from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import AttackError
from nip_audio.purifiers.defending import DefendedModel
from nip_audio.purifiers.noise import GaussianNoise
from nip_audio.purifiers.quantization import Quantization
from tests.tolerance import assert_same_but_for_signs

EPS = 0.002
WAVEFORM = Bounds(-1.0, 1.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch() -> Batch:
    return Batch(0.2 * (torch.rand(3, 8000, generator=seeded(7)) - 0.5))


@pytest.fixture
def away(tiny_model, batch) -> Identification:
    return Identification(tiny_model, tiny_model.predict(batch))


def test_equals_ten_lines_from_the_same_start(tiny_model, batch, away):
    attack = EndToEndPgd(EPS, steps=3, step_share=0.2, restarts=1)
    got = attack(away, batch, generator=seeded(3)).batch.x
    generator = seeded(3)
    torch.randint(2**31, (1,), generator=generator)  # the base class seeds global generators
    x = batch.x + EPS * (torch.rand(batch.x.shape, generator=generator) * 2 - 1)
    for _ in range(3):
        x = x.detach().requires_grad_(True)
        logits = tiny_model.logits(tiny_model.scores(batch.with_x(x)))
        loss = nn.functional.cross_entropy(logits.double(), away.label, reduction="sum")
        x = x + 0.2 * EPS * torch.autograd.grad(loss, x)[0].sign()
        x = (batch.x + (x - batch.x).clamp(-EPS, EPS)).clamp(-1, 1).detach()
    assert_same_but_for_signs(got, x)


def test_without_a_defence_it_is_as_strong_as_foolboxs(away, batch):
    eps = 0.02
    own = EndToEndPgd(eps, steps=10, step_share=0.2, restarts=1)(away, batch, generator=seeded())
    theirs = GradientAttack("pgd", eps)(away, batch, generator=seeded())

    def margin(x: Batch) -> torch.Tensor:
        logits = away.logits(x)
        own_logit = logits.gather(1, away.label[:, None])[:, 0]
        return own_logit - logits.scatter(1, away.label[:, None], -torch.inf).amax(1)

    clean = margin(batch)
    assert (margin(own.batch) < clean).all()
    gap = (margin(own.batch) - margin(theirs.batch)).abs() / (clean - margin(theirs.batch))
    assert gap.max() < 0.25


class Threshold(nn.Module):
    """Fools only from one side: a start on the wrong side never gets there."""

    def forward(self, x, lengths=None):
        return torch.stack([x[:, 0] * 0 + 0.5, (x[:, 0] - 0.0).relu() * 1000], dim=1)


def test_restarts_only_what_is_not_fooled_yet():
    model = InstrumentedModel(Threshold(), head=nn.Identity(), bounds=WAVEFORM).eval()
    objective = Identification(model, torch.zeros(8, dtype=torch.long))
    x = torch.full((8, 2), 1e-9)
    batch = Batch(x)
    one = EndToEndPgd(0.01, steps=2, restarts=1)(objective, batch, generator=seeded(1))
    many = EndToEndPgd(0.01, steps=2, restarts=8)(objective, batch, generator=seeded(1))
    assert 0 < one.succeeded.sum() < 8
    assert many.succeeded.all()
    assert torch.equal(many.batch.x[one.succeeded], one.batch.x[one.succeeded])
    per_start = one.queries
    assert many.queries < 8 * per_start


@pytest.mark.parametrize(
    "purifier",
    [GaussianNoise(snr_db=25, bounds=WAVEFORM), Quantization(bits=8, bounds=WAVEFORM)],
    ids=lambda p: p.name,
)
def test_attacks_through_a_purifier(tiny_model, batch, purifier):
    defended = DefendedModel(tiny_model, purifier, generator=seeded(5))
    own = tiny_model.predict(batch)
    objective = Identification(defended, own)
    attack = EndToEndPgd(0.02, steps=8, step_share=0.2, restarts=1, draws=2)
    x = attack(objective, batch, generator=seeded()).batch
    judge = DefendedModel(tiny_model, purifier, generator=seeded(6))
    item = torch.arange(3)
    before = judge.scores(batch).softmax(1)[item, own]
    assert (judge.scores(x).softmax(1)[item, own] < before).all()


class Loudness(nn.Module):
    """A detector of what is far from silence."""

    def forward(self, batch):
        return batch.x.abs().amax(dim=1)


def test_guarded_decision_needs_both(tiny_model, batch, away):
    quiet = Guarded(away, Loudness(), threshold=0.05, scale=0.01)
    deaf = Guarded(away, Loudness(), threshold=10.0, scale=0.01)
    other = Guarded(
        Identification(tiny_model, (away.label + 1) % 3), Loudness(), threshold=10.0, scale=0.01
    )
    assert quiet.succeeded(batch).tolist() == [False] * 3
    assert deaf.succeeded(batch).tolist() == [False] * 3
    assert other.succeeded(batch).tolist() == [True] * 3
    loud = Guarded(other.objective, Loudness(), threshold=0.05, scale=0.01)
    assert loud.succeeded(batch).tolist() == [False] * 3  # named otherwise, but noticed
    margin = loud.logits(batch)[:, 1]
    torch.testing.assert_close(margin, ((0.05 - batch.x.abs().amax(1)) / 0.01))


def test_attack_keeps_to_what_the_detector_lets_through(tiny_model, batch, away):
    """With the detector in the loss the example stays quieter than without."""
    loud = batch.with_x(batch.x * 0.4)
    guarded = Guarded(away, Loudness(), threshold=float(loud.x.abs().max()), scale=1e-4)
    attack = EndToEndPgd(0.01, steps=6, step_share=0.2, restarts=1)
    free = attack(away, loud, generator=seeded()).batch.x.abs().amax(1)
    kept = attack(guarded, loud, generator=seeded()).batch.x.abs().amax(1)
    assert (kept < free).all()


def test_guarded_targets_and_selects(tiny_model, batch):
    references = torch.randn(3, 6, generator=seeded(1))
    accept = Verification(tiny_model, references, threshold=0.1, goal="accept")
    guarded = Guarded(accept, Loudness(), threshold=10.0, scale=1.0)
    torch.testing.assert_close(guarded.logits(batch)[:, 1], 2 * accept.logits(batch)[:, 1])
    one = guarded.select([2, 2])
    expected = guarded.logits(batch)[2].expand(2, 2)
    again = Batch(batch.x[[2, 2]])
    torch.testing.assert_close(one.logits(again), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("options", [{"steps": 0}, {"restarts": 0}, {"draws": 0}])
def test_senseless_settings_are_an_error(options):
    with pytest.raises(AttackError, match="expected ≥ 1 each and > 0"):
        EndToEndPgd(EPS, **options)
