from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.utils.estimator_checks import parametrize_with_checks

from nip_audio.detectors.perceptron import AttackPerceptron


@parametrize_with_checks([AttackPerceptron(max_iter=100)])
def test_scikit_learn_accepts_it(estimator, check):
    check(estimator)


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    """Attacks lie on both sides of the clean rows: no line tells them apart."""
    rng = np.random.default_rng(0)
    clean = rng.normal(0, 1, (150, 3))
    sides = rng.choice([-1, 1], 150)[:, None] * [4.0, 0.0, 0.0]
    return np.r_[clean, rng.normal(0, 1, (150, 3)) + sides], np.repeat([0, 1], 150)


def test_learns_both_sides(data):
    fitted = AttackPerceptron(max_iter=2000).fit(*data)
    assert (fitted.predict(data[0]) == data[1]).mean() > 0.93


@pytest.mark.parametrize("features", [3, 40])
def test_has_no_more_parameters_than_allowed(features):
    rng = np.random.default_rng(1)
    fitted = AttackPerceptron(max_iter=300).fit(rng.normal(size=(60, features)), np.arange(60) % 2)
    hidden = fitted.weights_["b1"].size
    assert fitted.parameters_ == features * hidden + 2 * hidden + 1 <= 1792
    assert fitted.parameters_ + features + 2 > 1792


def test_probability_sign_and_graph_agree(data):
    fitted = AttackPerceptron(max_iter=500).fit(*data)
    odds = fitted.decision_function(data[0])
    np.testing.assert_allclose(fitted.predict_proba(data[0])[:, 1], 1 / (1 + np.exp(-odds)))
    np.testing.assert_array_equal(fitted.score_samples(data[0]), -odds)
    rows = torch.from_numpy(data[0]).requires_grad_(True)
    np.testing.assert_allclose(fitted.distance_of(rows).detach().numpy(), odds)
    (gradient,) = torch.autograd.grad(fitted.distance_of(rows).sum(), rows)
    assert (gradient.abs().sum(dim=1) > 0).all()


def test_round_trip_through_tensors(data):
    fitted = AttackPerceptron(max_iter=200).fit(*data)
    loaded = AttackPerceptron.from_tensors(fitted.to_tensors())
    np.testing.assert_array_equal(
        loaded.decision_function(data[0]), fitted.decision_function(data[0])
    )
    assert loaded.parameters_ == fitted.parameters_


def test_one_class_alone_is_an_error(data):
    with pytest.raises(ValueError, match="class"):
        AttackPerceptron().fit(data[0], np.zeros(300))


def test_clipped_inputs_have_no_log_odds_far_from_all_others(data):
    rows, classes = data
    clipped = AttackPerceptron(max_iter=300, clip=2.0).fit(rows, classes)
    center, scale = clipped.weights_["center"], clipped.weights_["scale"]
    directions = np.random.default_rng(0).normal(size=(20, 3))
    at_the_edge = center + scale * np.clip((directions * 1e6 - center) / scale, -2, 2)
    np.testing.assert_allclose(
        clipped.decision_function(directions * 1e6), clipped.decision_function(at_the_edge)
    )
    unclipped = AttackPerceptron(max_iter=300).fit(rows, classes)
    assert np.abs(unclipped.decision_function(directions * 1e6)).max() > 1e4
    assert np.abs(clipped.decision_function(directions * 1e6)).max() < 100


def test_the_clip_is_learned_from_clipped_rows_and_kept_in_a_file(data):
    rows, classes = data
    first = AttackPerceptron(max_iter=50, clip=1.0).fit(rows, classes)
    assert first.weights_["clip"] == 1.0
    assert first.to_tensors()["clip"].tolist() == [1.0]
    loaded = AttackPerceptron.from_tensors(first.to_tensors())
    far = rows * 50
    np.testing.assert_array_equal(loaded.decision_function(far), first.decision_function(far))
    # what lies beyond the clip in training teaches nothing about how far beyond it lies
    center, scale = first.weights_["center"], first.weights_["scale"]
    other = AttackPerceptron(max_iter=50, clip=np.inf).fit(rows, classes)
    assert other.weights_["clip"] == np.inf
    inside = (np.abs((rows - center) / scale) <= 1).all(axis=1)
    assert 0 < inside.sum() < len(rows)
    assert not np.allclose(other.weights_["w1"], first.weights_["w1"])
