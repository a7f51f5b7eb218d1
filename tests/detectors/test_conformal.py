from __future__ import annotations

import numpy as np
import pytest

from nip_audio.detectors.clean import CleanDistance
from nip_audio.detectors.conformal import (
    TailFit,
    conformal_p_value,
    conformal_threshold,
    exponential_tail,
    files_needed,
    fit_tail,
    out_of_fold_distances,
    q_values,
)
from nip_audio.errors import CalibrationError, InputError


@pytest.mark.parametrize(
    ("count", "rate", "rank"),
    [
        (99, 0.01, 99),  # ⌈100 · 0.99⌉: the largest, and just enough files
        (99, 0.05, 95),
        (100, 0.05, 96),  # ⌈95.95⌉
        (19, 0.05, 19),
        (9, 0.1, 9),
        (10, 0.3, 8),  # ⌈7.7⌉
        (1, 0.5, 1),
    ],
)
def test_threshold_is_the_exact_order_statistic(count, rate, rank):
    distances = np.random.default_rng(0).permutation(np.arange(1.0, count + 1))
    assert conformal_threshold(distances, rate) == rank


@pytest.mark.parametrize(("count", "rate"), [(99, 0.05), (60, 0.05), (19, 0.05), (30, 0.2)])
def test_threshold_keeps_its_finite_sample_promise(count, rate):
    """Over draws of the calibration files, a new file is flagged at most at the stated rate."""
    rng = np.random.default_rng(count)
    thresholds = [conformal_threshold(rng.uniform(size=count), rate) for _ in range(4000)]
    flagged = 1 - np.mean(thresholds)  # the chance that a new uniform one is above
    rank = np.ceil((count + 1) * (1 - rate) - 1e-9)
    exact = (count + 1 - rank) / (count + 1)
    assert exact <= rate + 1e-12
    assert flagged == pytest.approx(exact, abs=0.004)


@pytest.mark.parametrize(
    ("rate", "count"), [(0.01, 99), (0.05, 19), (0.1, 9), (0.5, 1), (0.03, 33), (0.001, 999)]
)
def test_files_needed_is_the_smallest_number_that_works(rate, count):
    assert files_needed(rate) == count
    conformal_threshold(np.ones(count), rate)
    with pytest.raises(CalibrationError, match=rf"{count - 1} clean files .* at least {count} are"):
        conformal_threshold(np.ones(count - 1), rate)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 5])
def test_senseless_rate_is_an_error(rate):
    with pytest.raises(
        InputError, match=r"false-positive rate is .*, expected a share in \(0, 1\)"
    ):
        conformal_threshold(np.ones(10), rate)


def test_p_value_by_hand():
    distances = [1.0, 2.0, 3.0, 4.0]
    expected = {0.5: 1.0, 1.0: 1.0, 2.5: 0.6, 4.0: 0.4, 9.0: 0.2}
    for distance, p_value in expected.items():
        assert conformal_p_value(distances, distance) == pytest.approx(p_value)


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3])
def test_p_value_and_threshold_agree(rate):
    distances = np.random.default_rng(0).uniform(size=57)
    threshold = conformal_threshold(distances, rate)
    for distance in [*distances, threshold + 1e-9, threshold - 1e-9]:
        assert (distance > threshold) == (conformal_p_value(distances, distance) <= rate)


class Recorder(CleanDistance):
    """Notes the rows it was fitted on."""

    folds: list = []  # noqa: RUF012

    def fit(self, X, y=None):
        type(self).folds.append({tuple(row) for row in np.asarray(X)})
        return super().fit(X)

    def score_samples(self, X):
        assert not type(self).folds[-1] & {tuple(row) for row in np.asarray(X)}
        return super().score_samples(X)


def test_out_of_fold_distances_use_whole_groups():
    rng = np.random.default_rng(0)
    rows = rng.uniform(0.1, 1.0, size=(60, 3))
    groups = [f"speaker {i % 12}" for i in range(60)]
    Recorder.folds = []
    got = out_of_fold_distances(Recorder(), rows, groups, folds=4)
    assert len(Recorder.folds) == 4
    for fitted in Recorder.folds:
        used = [tuple(row) in fitted for row in rows]
        for group in set(groups):
            assert len({u for u, g in zip(used, groups, strict=True) if g == group}) == 1
    assert got.shape == (60,)
    assert (got > 0).all()
    assert np.isfinite(got).all()


def test_out_of_fold_distances_leave_the_detector_alone_and_exceed_those_seen():
    rows = np.random.default_rng(0).uniform(0.1, 1.0, size=(30, 8))
    detector = CleanDistance()
    got = out_of_fold_distances(detector, rows, [str(i) for i in range(30)])
    assert not hasattr(detector, "center_")
    assert got.mean() > detector.fit(rows).distance(rows).mean()


def test_too_few_groups_are_an_error():
    with pytest.raises(CalibrationError, match="of 2 speakers or files, expected at least 5"):
        out_of_fold_distances(CleanDistance(), np.ones((6, 2)), ["a", "b"] * 3)


def test_distance_that_is_no_number_is_an_error():
    with pytest.raises(CalibrationError, match="not finite"):
        conformal_threshold([1.0, float("nan"), 2.0], 0.5)


def test_benjamini_hochberg_by_hand():
    """Sorted .01 .02 .03 .5 against .0125 .025 .0375 .05: the first three pass."""
    flagged = q_values([0.5, 0.03, 0.01, 0.02]) <= 0.05
    assert flagged.tolist() == [False, True, True, True]


def test_a_late_passing_p_value_takes_earlier_ones_with_it():
    assert (q_values([0.04, 0.045, 0.03]) <= 0.05).all()


def test_nothing_to_flag():
    assert not (q_values([0.2, 0.9]) <= 0.05).any()
    assert q_values([]).tolist() == []


def test_few_clean_files_are_flagged_in_a_clean_folder():
    """All are clean: the chance that any is flagged is the rate."""
    rng = np.random.default_rng(0)
    runs = [(q_values(rng.uniform(size=50)) <= 0.1).any() for _ in range(400)]
    assert 0.06 < np.mean(runs) < 0.14


def test_a_p_value_of_zero_is_an_error():
    with pytest.raises(InputError, match="p-values"):
        q_values([0.0])


def test_tail_follows_a_known_distribution():
    """Exponential: beyond the limit p falls by e for every unit."""
    distances = np.random.default_rng(0).exponential(size=20000)
    tail = fit_tail(distances)
    for distance in (4.0, 7.0, 10.0):
        assert tail.p_value(distance) == pytest.approx(np.exp(-distance), rel=0.5)
    assert tail.p_value(tail.limit) == pytest.approx(0.1)


def test_tail_goes_below_what_counting_gives():
    distances = np.random.default_rng(1).exponential(size=300)
    assert fit_tail(distances).p_value(20.0) < 1e-3 < conformal_p_value(distances, 20.0)


@pytest.mark.parametrize(
    ("distances", "match"), [(np.arange(199.0), "at least 200"), ([np.nan] * 300, "not finite")]
)
def test_a_tail_that_cannot_be_fitted_is_an_error(distances, match):
    with pytest.raises(CalibrationError, match=match):
        fit_tail(distances)


def test_exponential_tail_by_hand():
    """Of forty, the largest four lie 1, 2, 3 and 6 above the limit: 3 on average."""
    distances = [*np.linspace(0, 10, 36), 11.0, 12.0, 13.0, 16.0]
    tail = exponential_tail(distances[::-1])
    assert (tail.limit, tail.share, tail.shape, tail.scale) == (10, 0.1, 0, 3)
    assert tail.p_value(10.0) == pytest.approx(0.1)
    assert tail.p_value(16.0) == pytest.approx(0.1 * np.exp(-2))
    assert tail.threshold(0.1) == pytest.approx(10)
    assert tail.threshold(0.1 * np.exp(-2)) == pytest.approx(16)


def test_exponential_tail_follows_a_known_distribution():
    distances = np.random.default_rng(0).exponential(2.0, size=20000)
    tail = exponential_tail(distances)
    assert tail.scale == pytest.approx(2.0, rel=0.1)  # of 2,000 values: a deviation of 2.2 %
    for share in (0.01, 1e-4):
        assert tail.threshold(share) == pytest.approx(-2 * np.log(share), rel=0.05)


def test_exponential_tail_of_equal_distances_is_finite():
    tail = exponential_tail([1.0] * 30)
    assert tail.threshold(1e-6) == pytest.approx(1.0, abs=1e-6)
    assert 0 < tail.p_value(2.0) < 1e-6


@pytest.mark.parametrize("shape", [0.0, 0.3, -0.3])
@pytest.mark.parametrize("share", [0.1, 0.01, 1e-5])
def test_threshold_of_a_tail_is_where_its_p_value_is_the_share(shape, share):
    tail = TailFit(limit=2.0, share=0.1, shape=shape, scale=0.5)
    assert tail.p_value(tail.threshold(share)) == pytest.approx(share)
    assert tail.threshold(0.1) == pytest.approx(2.0)
    if shape < 0:
        assert tail.threshold(share) < 2 + 0.5 / 0.3  # the upper end


@pytest.mark.parametrize("distances", [np.arange(19.0), [*range(30), np.nan], [np.inf] * 40])
def test_an_exponential_tail_that_cannot_be_fitted_is_an_error(distances):
    with pytest.raises(CalibrationError, match="expected at least 20 finite ones"):
        exponential_tail(distances)
