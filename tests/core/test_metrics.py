from __future__ import annotations

import numpy as np
import pytest

from nip_audio.core.metrics import (
    Interval,
    auroc,
    bootstrap,
    detection_rate,
    equal_error_rate,
    min_dcf,
    top_k_consistency,
)
from nip_audio.errors import InputError


@pytest.mark.parametrize(
    ("target", "impostor", "rate", "threshold"),
    [
        ([2.0, 3.0], [0.0, 1.0], 0.0, 1.5),
        ([0.0, 1.0], [0.0, 1.0], 0.5, 0.5),
        ([0.0], [1.0], 1.0, 0.5),
        # one tie: errors go from (far 0, frr 1/2) to (1/2, 0) and cross half-way
        ([2.0, 1.0], [1.0, 0.0], 0.25, 0.5),
        # far stays 1/3 while frr falls from 1/2 to 0
        ([3.0, 1.0], [2.0, 0.0, -1.0], 1 / 3, 0.5),
    ],
)
def test_eer_by_hand(target, impostor, rate, threshold):
    got = equal_error_rate(np.array(target), np.array(impostor))
    assert (got.rate, got.threshold) == (pytest.approx(rate), threshold)


def test_eer_of_a_known_model_in_the_limit():
    # N(1, 1) against N(−1, 1): Φ(−1) at threshold 0
    rng = np.random.default_rng(0)
    got = equal_error_rate(rng.normal(1, 1, 40_000), rng.normal(-1, 1, 40_000))
    assert got.rate == pytest.approx(0.1587, abs=0.004)
    assert got.threshold == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize("metric", [equal_error_rate, auroc])
@pytest.mark.parametrize("sides", [([], [1.0]), ([1.0], [])])
def test_one_empty_side_is_an_error(metric, sides):
    with pytest.raises(InputError, match="at least one"):
        metric(*map(np.array, sides))


def test_auroc_by_hand():
    # pairs: 3>2, 3>0, 1<2, 1>0, and a tie counts half
    assert auroc(np.array([3.0, 1.0]), np.array([2.0, 0.0])) == pytest.approx(0.75)
    assert auroc(np.array([1.0]), np.array([1.0])) == pytest.approx(0.5)


def test_detection_rate_by_hand():
    negative = np.arange(1.0, 12.0)  # 1 … 11: one above 10 is 9.1 %
    positive = np.array([10.0, 10.5, 11.5, 20.0])
    assert detection_rate(positive, negative, false_positive_rate=0.1) == pytest.approx(0.75)
    assert detection_rate(positive, negative, false_positive_rate=0.05) == pytest.approx(0.5)


@pytest.mark.parametrize("size", [7, 20, 21, 99, 100])
@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1, 0.5])
def test_detection_rate_never_flags_more_negatives_than_stated(size, rate):
    negative = np.random.default_rng(size).permutation(size).astype(float)
    assert detection_rate(negative, negative, false_positive_rate=rate) <= rate


@pytest.mark.parametrize(
    ("positive", "negative", "rate"),
    [([], [1.0], 0.1), ([1.0], [], 0.1), ([1.0], [1.0], 0.0), ([1.0], [1.0], 1.0)],
)
def test_detection_rate_refuses(positive, negative, rate):
    with pytest.raises(InputError, match=r"at least one of each and a rate in \(0, 1\)"):
        detection_rate(np.array(positive), np.array(negative), false_positive_rate=rate)


def test_bootstrap_is_reproducible_and_contains_the_value():
    data = np.random.default_rng(0).normal(5.0, 1.0, 200)
    interval = bootstrap(lambda i: float(data[i].mean()), 200, seed=3)
    assert interval == bootstrap(lambda i: float(data[i].mean()), 200, seed=3)
    assert interval != bootstrap(lambda i: float(data[i].mean()), 200, seed=4)
    assert interval.value == pytest.approx(data.mean())
    assert interval.low < interval.value < interval.high
    # ± 1.96 σ/√n
    half = 1.96 * data.std() / 200**0.5
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.15)


def test_bootstrap_level_widens_the_interval():
    data = np.random.default_rng(0).normal(size=50)
    narrow, wide = (
        bootstrap(lambda i: float(data[i].mean()), 50, seed=1, level=level) for level in (0.5, 0.99)
    )
    assert wide.low < narrow.low < narrow.high < wide.high


def test_bootstrap_draws_anew_when_a_class_is_missing():
    truth = np.array([1.0, 0.0, 0.0])
    rounds = []

    def statistic(index):
        value = auroc(truth[index][truth[index] == 1], truth[index][truth[index] == 0])
        rounds.append(value)
        return value

    assert bootstrap(statistic, 3, seed=0, rounds=50) == Interval(1.0, 1.0, 1.0)
    assert len(rounds) == 51


def test_bootstrap_of_what_cannot_be_computed_is_an_error():
    def statistic(index):
        raise InputError("never")

    with pytest.raises(InputError, match="cannot be computed on most bootstrap resamples"):
        bootstrap(statistic, 3, seed=0, rounds=5)


def test_interval_is_plain_rounded_json():
    assert Interval(1 / 3, 0.0, 1.0).to_json() == {"value": 0.33333, "low": 0.0, "high": 1.0}


def test_min_dcf_by_hand():
    # thresholds: accept ≥ 3 misses one of two targets, no alarm; ≥ 1 misses none, alarms 1 of 4
    targets, impostors = np.array([3.0, 1.0]), np.array([2.0, 0.0, 0.0, 0.0])
    assert min_dcf(targets, impostors, p_target=0.5) == pytest.approx(0.25)
    # at a prior of 0.01 an alarm costs 99 times a miss: 0.01 · 1/2 against 0.99 · 1/4
    assert min_dcf(targets, impostors) == pytest.approx(0.5)
    assert min_dcf(np.array([2.0]), np.array([1.0])) == 0.0
    assert min_dcf(np.array([0.0]), np.array([1.0])) == 1.0  # no better than a blind answer
    with pytest.raises(InputError, match="expected a prior in"):
        min_dcf(targets, impostors, p_target=0.0)
    with pytest.raises(InputError, match="needs at least one"):
        min_dcf(targets, np.array([]))


def test_top_k_consistency_by_hand():
    before = np.array([[5.0, 4.0, 3.0, 2.0], [1.0, 2.0, 3.0, 4.0]])
    after = np.array([[5.0, 4.0, 0.0, 1.0], [4.0, 3.0, 2.0, 1.0]])
    assert top_k_consistency(before, after, k=2).tolist() == [1.0, 0.0]
    assert top_k_consistency(before, after, k=3).tolist() == [0.5, 0.5]
    with pytest.raises(InputError, match=r"with k = 5, expected two equal shapes \(items, N\)"):
        top_k_consistency(before, after)
