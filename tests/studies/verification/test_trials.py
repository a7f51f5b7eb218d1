from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from nip_audio.attacks.objectives import Verification
from nip_audio.audio.manifest import Recording
from nip_audio.core.adapter import Batch
from nip_audio.core.metrics import Interval, equal_error_rate
from nip_audio.core.model import CosineHead
from nip_audio.errors import InputError
from nip_audio.evaluation.identification import Crop
from nip_audio.models.plda import PldaHead
from nip_audio.purifiers.noise import GaussianNoise
from studies.verification import trials as module
from studies.verification.trials import (
    Trial,
    Verifier,
    clips_of,
    draw_trials,
    error_rates,
    is_target,
    recovered,
    returned,
)


def clip(speaker: str, take: int, size: int = 4000) -> Crop:
    seed = sum(map(ord, speaker)) * 100 + take
    samples = 0.2 * (torch.rand(size, generator=torch.Generator().manual_seed(seed)) - 0.5)
    path = Path(speaker) / f"{take}.wav"
    return Crop(Recording(path.as_posix(), path, speaker), samples, f"{speaker}{take}")


def clips(speakers: str, takes: range) -> list[Crop]:
    return [clip(speaker, take) for speaker in speakers for take in takes]


@pytest.fixture
def trials() -> list[Trial]:
    """Two targets and two impostors of two speakers."""
    pairs = ["aa", "bb", "ab", "ba"]
    return [Trial(clip(claimed, 0), clip(own, 1)) for claimed, own in pairs]


def draw(targets: int = 6, impostors: int = 6, seed: int = 0) -> list[Trial]:
    return draw_trials(
        clips("abc", range(3)), clips("abc", range(3, 6)),
        targets=targets, impostors=impostors, seed=seed,
    )  # fmt: skip


def named(trials: list[Trial]) -> list[tuple[str, str]]:
    return [(t.enrolment.recording.id, t.test.recording.id) for t in trials]


def test_trials_are_distinct_and_balanced_and_of_the_roles_asked_for():
    drawn = draw()
    assert is_target(drawn).tolist() == [True] * 6 + [False] * 6
    assert len(set(named(drawn))) == 12
    for kind in (drawn[:6], drawn[6:]):
        assert Counter(t.test.speaker for t in kind) == {"a": 2, "b": 2, "c": 2}
    assert {int(t.enrolment.recording.id[2]) for t in drawn} <= {0, 1, 2}
    assert {int(t.test.recording.id[2]) for t in drawn} <= {3, 4, 5}


def test_the_first_trials_are_those_of_a_shorter_draw():
    long, short = draw(6, 6), draw(3, 2)
    assert named(short) == named(long[:3] + long[6:8])
    assert named(draw(seed=1)) != named(long)


def test_too_few_trials_or_speakers_are_an_error():
    with pytest.raises(InputError, match=r"has fewer trials than the 28 asked for need"):
        draw(targets=28)  # there are 27
    assert len(draw(targets=27)) == 33
    with pytest.raises(InputError, match="0 target and 6 impostor trials, expected ≥ 1"):
        draw(targets=0)
    with pytest.raises(InputError, match="1 speakers have clips to enrol from and 2 clips to test"):
        draw_trials(clips("a", range(2)), clips("ab", range(2)), targets=1, impostors=1, seed=0)


def test_clips_of_different_lengths_are_an_error(trials):
    assert clips_of(trials, "enrolment").shape == (4, 4000)
    odd = [*trials, Trial(clip("a", 0), clip("a", 9, size=3999))]
    with pytest.raises(InputError, match="clips of 3999 to 4000 samples, expected one length"):
        clips_of(odd, "test")


@pytest.fixture(params=["cosine", "plda"])
def verifier(request, tiny_model, plda) -> Verifier:
    back_end = CosineHead if request.param == "cosine" else partial(PldaHead, plda)
    return Verifier(request.param, tiny_model, request.param, back_end)


def test_scores_are_those_of_the_attacked_objective_and_symmetric(verifier, trials):
    enrolled, tested = (verifier.embed(clips_of(trials, s)) for s in ("enrolment", "test"))
    scores = verifier.score(enrolled, tested)
    objective = Verification(
        verifier.model, enrolled, threshold=0.0, goal="accept", back_end=verifier.back_end
    )
    expected = objective.scores(Batch(clips_of(trials, "test"))).detach().double().numpy()
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scores, verifier.score(tested, enrolled), rtol=1e-9)
    assert np.ptp(scores) > 1e-3
    everything = verifier.score_all(enrolled, tested)
    assert everything.shape == (4, 4)
    # another shape of the product may round otherwise
    alone = verifier.score(enrolled[:1], tested[1:2])[0]
    np.testing.assert_allclose(everything[1, 0], alone, rtol=1e-12)


def test_a_defence_stands_before_all_that_is_embedded(verifier, trials):
    noise = GaussianNoise(snr_db=0.0, bounds=verifier.model.bounds)
    x = clips_of(trials, "test")
    defended = verifier.behind(noise, torch.Generator().manual_seed(0))
    changed = (defended.embed(x) - verifier.embed(x)).norm(dim=1)
    assert (changed > 1e-3).all()
    assert verifier.behind(None, torch.Generator()) is verifier


def test_error_rates_by_hand(trials):
    right = np.array([0.9, 0.8, 0.2, 0.1])
    rates = error_rates(right, trials, threshold=0.5, seed=0)
    assert {name: rate.value for name, rate in rates.items()} == {
        "eer": 0.0, "min_dcf": 0.0, "wrong": 0.0,
    }  # fmt: skip
    rates = error_rates(-right, trials, threshold=-0.85, seed=0)
    assert rates["eer"].value == 1.0
    assert rates["min_dcf"].value == 1.0  # to reject everybody costs no more
    assert rates["wrong"].value == 0.75  # one target is accepted
    assert rates["wrong"].low <= 0.75 <= rates["wrong"].high


def test_recovered_by_hand(trials):
    clean, lost = np.array([4.0, 3.0, 2.0, 1.0]), np.array([1.0, 2.0, 3.0, 4.0])
    half = np.array([4.0, 1.0, 3.0, 2.0])  # EER one half
    for purified, share in ((clean, 1.0), (half, 0.5), (lost, 0.0)):
        found = recovered(clean, lost, purified, trials, seed=0)
        assert found.value == share
        assert found.low <= share <= found.high
    assert recovered(half, lost, clean, trials, seed=0).value == 2.0  # better than it ever was
    assert recovered(clean, half, lost, trials, seed=0).value == -1.0
    assert recovered(clean, clean, half, trials, seed=0) is None


def test_a_loss_by_rounding_alone_is_none():
    """Both error rates are one in five, but for the last bit."""
    pairs = [Trial(clip("a", i), clip("a", i + 10)) for i in range(10)]
    pairs += [Trial(clip("a", i), clip("b", i)) for i in range(10)]
    own, other = [11, 9, 9, 5, 12, 1, 8, 10, 11, 7], [-1, -2, -1, 0, 4, 6, -5, 7, 1, -1]
    clean = np.array(own + other, dtype=float)
    own, other = [3, 11, 9, 0, 5, 12, 7, 0, 10, 10], [5, -4, -5, 6, -6, 1, -5, -2, 0, -1]
    attacked = np.array(own + other, dtype=float)
    rates = [equal_error_rate(scores[:10], scores[10:]).rate for scores in (clean, attacked)]
    assert rates[0] < rates[1] == pytest.approx(rates[0])
    assert recovered(clean, attacked, clean, pairs, seed=0) is None


def test_returned_by_hand(trials):
    clean, attacked = np.array([4.0, 4.0, 1.0, 1.0]), np.array([2.0, 2.0, 3.0, 3.0])
    halfway = np.array([3.0, 3.0, 2.0, 2.0])
    too_far = np.array([5.0, 5.0, 0.0, 0.0])
    for purified, share in ((attacked, 0.0), (halfway, 0.5), (clean, 1.0), (too_far, 1.5)):
        found = returned(clean, attacked, purified, trials, seed=0)
        assert found == Interval(share, share, share)
    assert returned(attacked, clean, halfway, trials, seed=0) is None


def test_scores_that_do_not_fit_are_an_error(trials):
    scores = np.zeros(3)
    with pytest.raises(InputError, match=r"got \[3\] scores of 2 target and 2 impostor trials"):
        error_rates(scores, trials, threshold=0.0, seed=0)
    with pytest.raises(InputError, match="2 target and 0 impostor trials, expected one a trial"):
        error_rates(scores[:2], trials[:2], threshold=0.0, seed=0)


def test_speakers_are_drawn_with_all_of_their_trials(trials, monkeypatch):
    drawn = []

    def once(statistic, size, **_):
        assert size == 2
        statistic(np.array([0, 1]))
        statistic(np.array([0, 0]))
        return Interval(0.0, 0.0, 0.0)

    monkeypatch.setattr(module, "bootstrap", once)
    module._over_speakers(lambda rows: drawn.append(rows.tolist()) or 0.0, trials, seed=0)
    # a twice and b never: a's target twice, no impostor trial has only a in it
    assert drawn == [[0, 1, 2, 3], [0, 0]]
    trials = [*trials, Trial(clip("c", 0), clip("a", 1))]
    monkeypatch.setattr(module, "bootstrap", lambda of, size, **_: of(np.array([0, 0, 2])))
    module._over_speakers(lambda rows: drawn.append(rows.tolist()) or 0.0, trials, seed=0)
    assert drawn[-1] == [0, 0, 4, 4]
