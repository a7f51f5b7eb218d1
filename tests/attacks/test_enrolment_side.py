from __future__ import annotations

import pytest
import torch

from nip_audio.attacks.enrolment import EnrolmentSide
from nip_audio.attacks.fakebob import Fakebob
from nip_audio.attacks.gradient import GradientAttack
from nip_audio.core.adapter import Batch
from nip_audio.errors import InputError
from tests.tolerance import assert_same_but_for_rounding, depth_of


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def enrolled() -> Batch:
    return Batch(0.2 * (torch.rand(2, 6000, generator=seeded(7)) - 0.5))


@pytest.fixture
def probes(embedding_model) -> torch.Tensor:
    clips = Batch(0.2 * (torch.rand(2, 6000, generator=seeded(8)) - 0.5).cumsum(1) / 20)
    return embedding_model.embed(clips).detach()


@torch.no_grad()
def test_score_is_what_enrolment_and_verification_give(embedding_model, enrolled, probes):
    others = embedding_model.embed(
        Batch(0.1 * torch.randn(6, 6000, generator=seeded(9)).clamp(-1, 1))
    ).reshape(2, 3, 6)
    side = EnrolmentSide(embedding_model, probes, threshold=0.1, goal="accept", others=others)
    unit, depth = torch.nn.functional.normalize, depth_of(embedding_model)
    for row in range(2):
        files = torch.stack([embedding_model.embed(enrolled.item(row))[0], *others[row]])
        voice = unit(files, dim=1).mean(dim=0)
        expected = unit(voice, dim=0) @ unit(probes[row], dim=0)
        assert_same_but_for_rounding(side.scores(enrolled)[row], expected, depth=depth, size=1.0)
    twice = side.select([1, 1]).scores(Batch(enrolled.x[[1, 1]]))
    expected = side.scores(enrolled)[1].expand(2)
    assert_same_but_for_rounding(twice, expected, depth=depth, size=1.0)


def test_impostor_is_let_in_by_a_poisoned_enrolment(embedding_model, enrolled, probes):
    clean = EnrolmentSide(embedding_model, probes, threshold=0.0, goal="accept")
    before = clean.scores(enrolled).detach()
    side = EnrolmentSide(
        embedding_model, probes, threshold=float(before.max()) + 1e-4, goal="accept"
    )
    assert not side.succeeded(enrolled).any()
    result = GradientAttack("pgd", 0.05, steps=20)(side, enrolled, generator=seeded())
    assert result.succeeded[before.argmax()]
    assert (side.scores(result.batch) > before).all()


@pytest.mark.parametrize("attack", [GradientAttack("pgd", 0.02), Fakebob(0.02, steps=10)])
def test_speaker_is_locked_out(embedding_model, enrolled, attack):
    own = embedding_model.embed(Batch(enrolled.x * 0.7)).detach()
    before = EnrolmentSide(embedding_model, own, threshold=0.0, goal="reject").scores(enrolled)
    threshold = float(before.detach().min()) - 1e-4
    side = EnrolmentSide(embedding_model, own, threshold=threshold, goal="reject")
    assert not side.succeeded(enrolled).any()
    result = attack(side, enrolled, generator=seeded())
    assert result.succeeded[before.argmin()]
    assert (side.scores(result.batch) < before).all()


@pytest.mark.parametrize("shape", [(3, 6), (1, 3, 6), (2, 3, 5)])
def test_other_recordings_that_do_not_fit_are_an_error(embedding_model, probes, shape):
    with pytest.raises(InputError, match=r"expected \(items, recordings, D\) for \(items, D\)"):
        EnrolmentSide(
            embedding_model, probes, threshold=0.1, goal="accept", others=torch.ones(shape)
        )
