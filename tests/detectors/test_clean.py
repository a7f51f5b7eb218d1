from __future__ import annotations

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from nip_audio.detectors.clean import CleanDistance


@parametrize_with_checks([CleanDistance()])
def test_scikit_learn_accepts_it(estimator, check):
    check(estimator)


@pytest.fixture
def rows() -> np.ndarray:
    """Logarithms of change rows, correlated as real ones are."""
    rng = np.random.default_rng(0)
    common = rng.normal(size=(300, 1))
    return -2.0 + 0.3 * common + 0.1 * rng.normal(size=(300, 6))


@pytest.mark.parametrize("shift", [2.3, -2.3], ids=["less stable", "more stable"])
def test_far_point_in_either_direction_is_an_outlier(rows, shift):
    detector = CleanDistance().fit(rows)
    typical = np.median(rows, axis=0)
    assert detector.predict([typical, typical + shift]).tolist() == [1, -1]
    assert detector.distance([typical + shift]) > 1.5 * detector.distance(rows).max()
    assert (np.sign(detector.explain(typical + shift)) == np.sign(shift)).all()


def test_breaking_the_correlation_is_farther_than_following_it(rows):
    detector = CleanDistance().fit(rows)
    typical = np.median(rows, axis=0)
    along = typical + 0.4
    against = typical + 0.4 * np.array([1, -1, 1, -1, 1, -1])
    near, far = detector.distance([along, against])
    assert far > 2 * near


def test_distance_by_hand():
    # median (2, 5); deviations (1, 1, 0, 1, 1) and 2·(…) have medians 1 and 2
    square = np.array([[1.0, 3.0], [1.0, 7.0], [2.0, 5.0], [3.0, 3.0], [3.0, 7.0]])
    detector = CleanDistance().fit(square)
    assert detector.center_.tolist() == [2.0, 5.0]
    np.testing.assert_allclose(detector.scale_, [1.4826, 2.9652])
    # the rows are uncorrelated: each scaled feature has variance 0.8 / 1.4826², shrunk or not
    np.testing.assert_allclose(detector.precision_, np.eye(2) * 1.4826**2 / 0.8, atol=1e-9)
    distances = detector.distance([[2.0, 5.0], [3.0, 5.0]])
    np.testing.assert_allclose(distances, [0.0, 0.8**-0.5], atol=1e-12)
    np.testing.assert_allclose(detector.explain([3.0, 5.0]), [1 / 1.4826, 0.0])


def test_scores_follow_scikit_learns_signs(rows):
    detector = CleanDistance(contamination=0.1).fit(rows)
    np.testing.assert_allclose(detector.score_samples(rows), -detector.distance(rows))
    decision = detector.decision_function(rows)
    np.testing.assert_allclose(decision, detector.score_samples(rows) - detector.offset_)
    assert (detector.predict(rows) == np.where(decision < 0, -1, 1)).all()
    assert (detector.predict(rows) == -1).mean() == pytest.approx(0.1, abs=0.01)


def test_a_few_bad_training_rows_hardly_move_it(rows):
    clean = CleanDistance().fit(rows)
    poisoned = np.vstack([rows, np.full((9, 6), 4.0)])
    moved = CleanDistance().fit(poisoned)
    np.testing.assert_allclose(moved.center_, clean.center_, atol=0.05)
    np.testing.assert_allclose(moved.scale_, clean.scale_, rtol=0.1)
    assert (moved.predict(poisoned[-9:]) == -1).all()


def test_round_trip_through_tensors(rows):
    detector = CleanDistance().fit(rows)
    again = CleanDistance.from_tensors(detector.to_tensors(), offset=detector.offset_)
    np.testing.assert_array_equal(again.distance(rows), detector.distance(rows))
    np.testing.assert_array_equal(again.predict(rows), detector.predict(rows))
    with pytest.raises(ValueError, match="expecting 6 features"):
        again.predict(rows[:, :5])


def test_constant_feature_does_not_divide_by_zero(rows):
    rows[:, 2] = 0.5
    detector = CleanDistance().fit(rows)
    assert np.isfinite(detector.distance(rows)).all()
    odd = rows[:1].copy()
    odd[0, 2] = 50.0
    assert detector.distance(odd) > detector.distance(rows[:1])


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        (np.ones((1, 3)), "minimum of 2 is required"),
        (np.full((3, 2), np.nan), "NaN"),
        (np.ones(3), "Expected 2D array"),
    ],
)
def test_unusable_rows_are_errors(rows, match):
    with pytest.raises(ValueError, match=match):
        CleanDistance().fit(rows)


@pytest.mark.parametrize("method", ["distance", "predict", "explain", "score_samples"])
def test_unfitted_detector_is_an_error(method):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(CleanDistance(), method)([[1.0, 2.0]] if method != "explain" else [1.0, 2.0])
    with pytest.raises(NotFittedError, match="not fitted yet"):
        CleanDistance().to_tensors()
