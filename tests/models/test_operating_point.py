"""Scores made by hand, whose rates, thresholds and costs are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nip_audio import Aim, TrialScores, find_operating_point
from nip_audio.core.metrics import equal_error_rate, min_dcf
from nip_audio.errors import InputError
from nip_audio.models.log_ratios import (
    LogRatios,
    cllr,
    compare_calibrations,
    fit_log_ratios,
    min_cllr,
)
from nip_audio.models.trial_scores import ErrorRates, GroupBootstrap, bca_interval

LN2 = math.log(2)


def all_pairs(groups: int, items: int, seed: int = 0, spread: float = 0.7) -> TrialScores:
    """All pairs of items that are noisy copies of their group's direction."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(groups, 8))
    rows = np.repeat(centres, items, axis=0) + spread * rng.normal(size=(groups * items, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = np.repeat([f"g{k}" for k in range(groups)], items)
    one, other = np.triu_indices(len(rows), 1)
    return TrialScores.of((rows @ rows.T)[one, other], names[one], names[other])


@pytest.fixture(scope="module")
def trials() -> TrialScores:
    return all_pairs(12, 5)


@pytest.fixture
def ten() -> TrialScores:
    """Targets at 2 and 4 to 7; impostors at 0 to 3 and 5."""
    scores = [2, 4, 5.5, 6, 7, 0, 1, 1.5, 3, 5]
    return TrialScores.of(scores, list("abcdeabcde"), list("abcdebcdea"))


@pytest.mark.parametrize(
    ("aim", "threshold", "far", "frr"),
    [
        (Aim(far=0.2), 3.5, 0.2, 0.2),  # between the impostor at 3 and the target at 4
        (Aim(far=0.19), 5.25, 0.0, 0.4),
        (Aim(far=0.4), 1.75, 0.4, 0.0),
        (Aim(), 3.5, 0.2, 0.2),
        (Aim(prior=0.01), 5.25, 0.0, 0.4),  # a false acceptance costs 99 times as much
        (Aim(prior=0.5, c_miss=20), 1.75, 0.4, 0.0),
    ],
)
def test_the_threshold_of_an_aim(ten, aim, threshold, far, frr):
    found = find_operating_point(ten, aim, rounds=100)
    assert found.threshold.value == threshold
    assert (found.far.value, found.frr.value) == pytest.approx((far, frr))
    assert found.eer.value == pytest.approx(0.2)


def test_rates_agree_with_the_metrics_of_the_house(trials):
    found = find_operating_point(trials, Aim(prior=0.05, c_miss=2), rounds=100)
    own, other = trials.targets, trials.impostors
    assert found.eer.value == pytest.approx(equal_error_rate(own, other).rate, abs=1e-12)
    cost = min_dcf(own, other, p_target=0.05, c_miss=2)
    assert found.min_dcf.value == pytest.approx(cost, abs=1e-12)
    assert found.far.value == (other >= found.threshold.value).mean()
    assert found.frr.value == pytest.approx((own < found.threshold.value).mean())
    for interval in (found.threshold, found.far, found.frr, found.eer, found.min_dcf, found.cllr):
        assert interval.low <= interval.value <= interval.high


def test_thinned_thresholds_meet_small_rates(trials):
    exact = find_operating_point(trials, Aim(far=0.01), rounds=100)
    rates = ErrorRates(trials, most=200)
    assert len(rates.thresholds) < 400 < len(trials.scores)
    far, frr = rates.whole
    place = int(np.argmax(far <= 0.01))
    assert exact.far.value * 0.95 <= far[place] <= 0.01
    assert frr[place] == pytest.approx(exact.frr.value, rel=0.05)


def test_a_weight_of_two_is_a_group_that_occurs_twice():
    trials = all_pairs(4, 3)
    weights = np.array([[2.0, 1.0, 0.0, 1.0]])
    rates = ErrorRates(trials)
    times = np.where(
        trials.same,
        weights[0, trials.first],
        weights[0, trials.first] * weights[0, trials.second],
    ).astype(int)
    scores, same = np.repeat(trials.scores, times), np.repeat(trials.same, times)
    far, frr = rates(weights)
    for place in (3, 20, 40):
        limit = rates.thresholds[place]
        assert far[0, place] == pytest.approx((scores[~same] >= limit).mean())
        assert frr[0, place] == pytest.approx((scores[same] < limit).mean())


def test_intervals_of_a_mean_hold_it_and_are_wider_than_percentiles():
    rng = np.random.default_rng(0)
    held, reach = [], []
    for _ in range(300):
        x = rng.exponential(size=12)
        weights = rng.multinomial(12, np.full(12, 1 / 12), 400)
        drawn, alone = weights @ x / 12, (x.sum() - x) / 11
        low, high = bca_interval(np.array(x.mean()), drawn, alone, count=12)
        plain = np.quantile(drawn, [0.025, 0.975])
        held.append((low <= 1 <= high, plain[0] <= 1 <= plain[1]))
        reach.append((high - low) / np.ptp(plain))
    ours, percentiles = np.mean(held, axis=0)
    assert ours > percentiles + 0.02
    assert np.mean(reach) > 1.05


def test_no_false_acceptance_is_no_proof():
    scores = [5.0, 6, 7, 1, 2, 3]
    found = find_operating_point(
        TrialScores.of(scores, list("abcabc"), list("abcbca")), Aim(far=0.1), rounds=100
    )
    assert found.far.value == 0
    assert found.far.high == pytest.approx(1 - 0.025 ** (1 / 3))  # three pairs of groups
    assert found.frr.high == pytest.approx(1 - 0.025 ** (1 / 3))


def test_the_same_seed_gives_the_same_intervals(trials):
    first, again, other = (
        find_operating_point(trials, rounds=100, seed=seed).to_json() for seed in (0, 0, 1)
    )
    assert first == again
    assert first["threshold"] != other["threshold"]


def test_cllr_of_known_ratios():
    same = np.array([True, True, False, False])
    assert cllr(np.zeros(4), same) == pytest.approx(1)
    assert cllr(np.array([50.0, 50, -50, -50]), same) == pytest.approx(0, abs=1e-12)
    found = cllr(np.array([LN2, LN2, -LN2, LN2]), same)
    # targets: log2(1.5); impostors: log2(1.5) and log2(3)
    assert found == pytest.approx((math.log2(1.5) + (math.log2(1.5) + math.log2(3)) / 2) / 2)


def test_least_cllr_by_hand(ten):
    assert min_cllr(TrialScores.of([1, 2, 3], list("aba"), list("bca"))) == pytest.approx(0)
    # one of two targets below one of two impostors: those two pool to a ratio of one
    crossed = TrialScores.of([0.0, 1, 2, 3], list("aaab"), list("babb"))
    assert crossed.same.tolist() == [False, True, False, True]
    assert min_cllr(crossed) == pytest.approx(0.5)
    assert min_cllr(ten) < cllr(fit_log_ratios(ten).of(ten.scores), ten.same)


def test_ratios_of_gaussian_scores_are_the_true_ones():
    rng = np.random.default_rng(0)
    own, other = rng.normal(2, 1, 20_000), rng.normal(0, 1, 60_000)
    groups = [f"g{k}" for k in range(200)]
    trials = TrialScores.of(
        np.r_[own, other],
        [groups[k % 200] for k in range(80_000)],
        [groups[k % 200] for k in range(20_000)] + [groups[(k + 1) % 200] for k in range(60_000)],
    )
    for prior in (0.5, 0.05):
        fitted = fit_log_ratios(trials, prior=prior)
        assert fitted.slope == pytest.approx(2, rel=0.05)  # ln N(s; 2, 1) / N(s; 0, 1) = 2 s − 2
        assert fitted.offset == pytest.approx(-2, abs=0.1)
    assert min_cllr(trials) <= cllr(fitted.of(trials.scores), trials.same)


def test_probabilities_follow_bayes():
    ratios = LogRatios(slope=1.0, offset=0.0)
    assert ratios.probability(math.log(99), prior=0.01) == pytest.approx(0.5)
    assert ratios.probability(-1e6, prior=0.5) == 0
    assert ratios.probability(1e6, prior=0.5) == 1
    with pytest.raises(InputError, match=r"prior is 1.5, expected a number in \(0, 1\)"):
        ratios.probability(0, prior=1.5)


def test_separable_trials_have_bounded_ratios():
    trials = TrialScores.of([5.0, 6, 7, 1, 2, 3], list("abcabc"), list("abcbca"))
    assert np.abs(fit_log_ratios(trials).of(trials.scores)).max() < 10


def test_calibrations_are_compared_on_unseen_groups(trials):
    found = compare_calibrations(trials)
    assert found is not None
    assert set(found) == {"logistic", "venn_abers"}
    assert all(min_cllr(trials) * 0.9 < value < 1 for value in found.values())
    assert compare_calibrations(all_pairs(5, 3)) is None


def test_conditions_have_rates_of_their_own(trials):
    flags = trials.scores > np.median(trials.scores)
    found = find_operating_point(
        trials, rounds=100, conditions={"high": flags, "none": np.zeros(len(flags), bool)}
    )
    high = found.parts["high"]
    own = trials.targets[flags[trials.same]]
    assert high["targets"] == len(own)
    assert high["frr"].value == pytest.approx((own < found.threshold.value).mean())
    assert found.parts["none"] == {
        "targets": 0, "impostors": 0, "far": None, "frr": None, "eer": None
    }  # fmt: skip


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Aim(far=0.1, prior=0.1), "a FAR and a prior, expected one aim"),
        (lambda: Aim(far=1.0), r"the FAR is 1.0, expected a share in \(0, 1\)"),
        (lambda: Aim(prior=0.0), r"the prior is 0.0, expected a number in \(0, 1\)"),
        (lambda: Aim(c_miss=-1), "costs are -1 and 1.0, expected numbers above 0"),
        (
            lambda: TrialScores.of([1.0, 2], ["a"], ["a", "b"]),
            "scores, 1 and 2 groups, expected one score and two groups",
        ),
        (lambda: TrialScores.of([1.0, 2], list("ab"), list("ab")), "2 trials of the same group"),
        (lambda: TrialScores.of([np.nan, 2], list("ab"), list("aa")), "NaN"),
        (
            lambda: find_operating_point(TrialScores.of([2.0, 1], list("aa"), list("ab"))),
            "of 2 groups, expected at least 3",
        ),
        (
            lambda: fit_log_ratios(TrialScores.of([1.0, 2, 1, 2], list("abab"), list("abba"))),
            "score no higher than others .*, expected a positive slope",
        ),
    ],
)
def test_what_gives_no_threshold_is_refused(make, match):
    with pytest.raises(InputError, match=match):
        make()


def test_few_groups_with_trials_within_them_are_drawn_again():
    trials = all_pairs(3, 2)
    boot = GroupBootstrap(trials, rounds=50, seed=0)
    assert boot.drawn.shape == (50, 3)
    assert ((boot.drawn > 0).sum(axis=1) >= 2).all()  # one group alone has no impostors
