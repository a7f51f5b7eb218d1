from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf_shrinkage

from nip_audio.core.adapter import Batch
from nip_audio.detectors.baselines.mahalanobis import ActivationMahalanobis, TiedGaussians
from nip_audio.errors import CalibrationError
from tests.tolerance import rounding

HEAD = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


@pytest.mark.parametrize("size", [3, 40])
def test_distance_is_that_of_the_whole_covariance(size):
    """More axes than vectors, and fewer: equal to inverting the shrunk matrix itself."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(20, size)) * rng.uniform(0.5, 3, size)
    mean = rows.mean(axis=0)
    residuals = rows - mean
    shrinkage = ledoit_wolf_shrinkage(residuals, assume_centered=True)
    whole = residuals.T @ residuals / len(rows)
    shrunk = (1 - shrinkage) * whole + shrinkage * np.trace(whole) / size * np.eye(size)
    vector = rng.normal(size=size)
    expected = np.sqrt((vector - mean) @ np.linalg.inv(shrunk) @ (vector - mean))
    got = TiedGaussians.fit(mean[None], residuals).distance(vector)
    assert got == pytest.approx(expected, rel=1e-6)


def test_the_nearest_mean_counts():
    gaussians = TiedGaussians(np.array([[0.0, 0.0], [5.0, 0.0]]), np.eye(2), np.array([4.0, 1]), 1)
    assert gaussians.distance(np.array([4.0, 2.0])) == pytest.approx(np.sqrt(1 / 4 + 4))


def test_equal_vectors_leave_a_plain_distance():
    gaussians = TiedGaussians.fit(np.zeros((1, 3)), np.zeros((5, 3)))
    assert gaussians.distance(np.array([0.0, 3.0, 4.0])) == pytest.approx(5.0)


def items(*rows: tuple[float, ...]) -> list[Batch]:
    return [Batch(torch.tensor([row])) for row in rows]


def test_classes_with_enough_items_have_a_mean_of_their_own(by_hand, generator):
    model = by_hand(HEAD)
    first = [(0.8, 0.1, 0.1), (0.9, 0.2, 0.1), (0.7, 0.1, 0.3)]
    second = [(0.1, 0.8, 0.2), (0.2, 0.9, 0.1)]
    measure = ActivationMahalanobis(["act"])
    measure.fit(model, items(*first, *second), generator=generator)
    assert measure.class_means_ == 1
    expected = np.array([np.mean(first, axis=0), np.mean(first + second, axis=0)]) * 2
    np.testing.assert_allclose(measure.gaussians_[0].means, expected, rtol=rounding())
    few = ActivationMahalanobis(["act"], fewest=4)
    few.fit(model, items(*first, *second), generator=generator)
    assert few.class_means_ == 0
    np.testing.assert_allclose(few.gaussians_[0].means, expected[1:], rtol=rounding())


def test_one_distance_a_layer_and_their_sum(by_hand, generator):
    model = by_hand(HEAD)
    clean = items((0.8, 0.1, 0.1), (0.9, 0.2, 0.1), (0.7, 0.1, 0.3), (0.1, 0.8, 0.2))
    measure = ActivationMahalanobis(["twice", "act"]).fit(model, clean, generator=generator)
    near = measure.measure(model, clean[1], generator=generator)
    far = measure.measure(model, items((-0.9, 0.9, 0.9))[0], generator=generator)
    assert (far > near).all()
    assert measure.suspicion(np.stack([near, far])) == pytest.approx([near.sum(), far.sum()])


def test_too_few_items_are_an_error(by_hand, generator):
    with pytest.raises(CalibrationError, match="got 1 clean items, expected at least 4; add more"):
        ActivationMahalanobis(["act"]).fit(
            by_hand(HEAD), items((0.8, 0.1, 0.1)), generator=generator
        )
