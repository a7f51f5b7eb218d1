from __future__ import annotations

from functools import partial

import pytest
import torch

from nip_audio.attacks.objectives import Identification, OpenSetIdentification, Verification
from nip_audio.core.adapter import Batch
from nip_audio.errors import InputError
from nip_audio.models.plda import PldaHead
from tests.tolerance import assert_same_but_for_rounding, depth_of


@pytest.fixture
def batch() -> Batch:
    return Batch(0.2 * (torch.rand(3, 8000, generator=torch.Generator().manual_seed(0)) - 0.5))


def test_identification_scores_and_judges_by_the_models_own_decision(tiny_model, batch):
    own = tiny_model.predict(batch)
    torch.testing.assert_close(
        Identification(tiny_model, own).logits(batch), 10.0 * tiny_model.scores(batch)
    )
    assert Identification(tiny_model, own).succeeded(batch).tolist() == [False] * 3
    assert Identification(tiny_model, (own + 1) % 3).succeeded(batch).tolist() == [True] * 3
    assert Identification(tiny_model, own, targeted=True).succeeded(batch).tolist() == [True] * 3


def test_verification_crosses_its_decision_at_the_threshold(embedding_model, batch):
    references = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    cosines = torch.nn.functional.cosine_similarity(embedding_model.embed(batch), references)
    threshold = float(cosines.detach().median())
    accept = Verification(embedding_model, references, threshold=threshold + 1e-4, goal="accept")
    reject = Verification(embedding_model, references, threshold=threshold + 1e-4, goal="reject")
    torch.testing.assert_close(accept.scores(batch), cosines)
    margin = cosines - threshold - 1e-4
    torch.testing.assert_close(accept.logits(batch), torch.stack([-margin, margin], dim=1))
    assert torch.equal(accept.succeeded(batch), cosines > threshold + 1e-4)
    assert torch.equal(reject.succeeded(batch), cosines < threshold + 1e-4)
    assert accept.succeeded(batch).sum() == 1


def test_verification_by_another_back_end(embedding_model, batch, plda, six_dim_voices):
    recordings = list(six_dim_voices[0].float().reshape(12, 5, 6)[:3])
    objective = Verification(
        embedding_model,
        recordings,
        threshold=-2.0,
        goal="accept",
        back_end=partial(PldaHead, plda),
    )
    ratios = plda.score(embedding_model.embed(batch), recordings).diagonal()
    depth = depth_of(embedding_model)
    assert_same_but_for_rounding(objective.scores(batch), ratios, depth=depth)
    assert_same_but_for_rounding(objective.logits(batch)[:, 1], ratios + 2.0, depth=depth)
    assert torch.equal(objective.succeeded(batch), ratios > -2.0)
    one = objective.select([2])
    torch.testing.assert_close(one.scores(batch.item(2)), ratios[2:], atol=1e-3, rtol=1e-3)


def test_open_set_rejects_under_the_threshold_and_else_takes_the_best(tiny_model, batch):
    scores = tiny_model.scores(batch).detach()
    best, own = scores.max(dim=1)
    threshold = float(best.median()) + 1e-4
    expected = torch.where(best >= threshold, own, 3)
    assert (expected == 3).sum() == 2
    objective = OpenSetIdentification(tiny_model, expected, threshold=threshold)
    logits = objective.logits(batch)
    torch.testing.assert_close(logits[:, :3], 10.0 * scores)
    torch.testing.assert_close(logits[:, 3], torch.full((3,), 10.0 * threshold))
    assert torch.equal(objective.decide(batch), expected)
    assert not objective.succeeded(batch).any()
    for target in range(4):
        aim = OpenSetIdentification(
            tiny_model, torch.full((3,), target), threshold=threshold, targeted=True
        )
        assert torch.equal(aim.succeeded(batch), expected == target)


def test_open_set_accepts_at_the_threshold_itself(tiny_model, batch):
    scores = tiny_model.scores(batch.item(0)).detach()
    label = torch.tensor([3])
    at = OpenSetIdentification(tiny_model, label, threshold=float(scores.max()))
    assert at.decide(batch.item(0)).tolist() == scores.argmax(dim=1).tolist()


@pytest.mark.parametrize("kind", ["identification", "open set", "verification"])
def test_select_is_the_objective_of_one_item(tiny_model, batch, kind):
    if kind == "identification":
        objective = Identification(tiny_model, torch.tensor([0, 1, 2]), targeted=True)
    elif kind == "open set":
        objective = OpenSetIdentification(tiny_model, torch.tensor([0, 3, 2]), threshold=0.2)
    else:
        references = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
        objective = Verification(tiny_model, references, threshold=0.1, goal="reject")
    one = objective.select([1])
    assert (type(one), one.targeted) == (type(objective), objective.targeted)
    assert torch.equal(one.label, objective.label[1:2])
    torch.testing.assert_close(
        one.logits(batch.item(1)), objective.logits(batch)[1:2], atol=1e-4, rtol=1e-4
    )


def test_objectives_refuse_what_does_not_fit(embedding_model):
    with pytest.raises(InputError, match="only embeds; attack it with Verification"):
        Identification(embedding_model, torch.tensor([0]))
    with pytest.raises(InputError, match="goal is 'confuse', expected one of"):
        Verification(embedding_model, torch.ones(1, 6), threshold=0.0, goal="confuse")
    with pytest.raises(InputError, match=r"references have shape \(6,\), expected \(items, D\)"):
        Verification(embedding_model, torch.ones(6), threshold=0.0, goal="accept")
