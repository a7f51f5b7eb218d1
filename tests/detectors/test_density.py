from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import LocalOutlierFactor
from sklearn.utils.estimator_checks import parametrize_with_checks

from nip_audio.detectors.density import CleanDensity


@parametrize_with_checks([CleanDensity()])
def test_scikit_learn_accepts_it(estimator, check):
    check(estimator)


@pytest.fixture
def rows() -> np.ndarray:
    """A ring: its middle is as empty as its outside."""
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 200)
    radius = rng.normal(5.0, 0.2, 200)
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])


def test_equals_scikit_learns(rows):
    fitted = CleanDensity(neighbours=15).fit(rows)
    plain = LocalOutlierFactor(n_neighbors=15, novelty=True).fit(fitted.rows_)
    new = np.random.default_rng(1).normal(0, 4, (30, 2))
    expected = plain.score_samples((new - fitted.center_) / fitted.scale_)
    np.testing.assert_allclose(fitted.score_samples(new), expected, rtol=1e-9)


def test_the_empty_middle_is_an_outlier_and_the_ring_is_not(rows):
    fitted = CleanDensity().fit(rows)
    assert fitted.predict([[0.0, 0.0], [5.0, 0.0], [9.0, 9.0]]).tolist() == [-1, 1, -1]


def test_graph_gives_the_same_number_and_leads_back_to_the_clean(rows):
    fitted = CleanDensity().fit(rows)
    x = torch.tensor([[8.0, 1.0]], dtype=torch.float64, requires_grad=True)
    value = fitted.distance_of(x)[0]
    assert value.item() == pytest.approx(float(fitted.distance([[8.0, 1.0]])[0]), rel=1e-12)
    (gradient,) = torch.autograd.grad(value, x)
    assert gradient[0, 0] > 0  # farther out is less dense still


def test_round_trip_through_tensors(rows):
    fitted = CleanDensity(neighbours=7).fit(rows)
    loaded = CleanDensity.from_tensors(
        fitted.to_tensors(), offset=fitted.offset_, neighbours=fitted.neighbours
    )
    new = rows[:9] + 0.3
    np.testing.assert_allclose(loaded.score_samples(new), fitted.score_samples(new), rtol=1e-9)
    assert loaded.predict(new).tolist() == fitted.predict(new).tolist()


def test_explains_in_robust_deviations():
    fitted = CleanDensity(neighbours=2).fit([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
    np.testing.assert_allclose(fitted.explain([1.0 + 1.4826, 3.0]), [1.0, 2.0])


def test_fewer_rows_than_neighbours_use_what_there_is():
    fitted = CleanDensity(neighbours=20).fit([[0.0], [1.0], [2.0]])
    assert fitted.distance([[50.0]])[0] > fitted.distance([[1.0]])[0]
