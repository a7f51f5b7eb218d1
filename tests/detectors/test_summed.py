from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from nip_audio.detectors.density import CleanDensity
from nip_audio.detectors.summed import CleanSum


@parametrize_with_checks([CleanSum()])
def test_keeps_scikit_learns_rules(estimator, check):
    check(estimator)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_one_telling_entry_counts_beside_forty(rng):
    clean, new = rng.normal(size=(300, 40)), rng.normal(size=(300, 40))
    attacked = rng.normal(size=(300, 40))
    attacked[:, -1] += 2.5
    found = {}
    for detector in (CleanDensity(), CleanSum()):
        scores = detector.fit(clean).distance(np.concatenate([new, attacked]))
        found[type(detector)] = roc_auc_score(np.repeat([0, 1], 300), scores)
    assert found[CleanSum] > 0.9 > found[CleanDensity] + 0.1


def test_the_last_entry_is_one_sided(rng):
    clean = rng.normal(size=(200, 5))
    detector = CleanSum().fit(clean)
    rows = np.zeros((3, 5))
    rows[:, -1] = [-5, 0, 5]
    low, middle, high = detector.distance(rows)
    assert low < middle < high


def test_both_terms_are_one_for_one_row_in_twenty(rng):
    clean = rng.normal(size=(2000, 3))
    detector = CleanSum().fit(clean)
    new = (rng.normal(size=(2000, 3)) - detector.center_) / detector.scale_
    terms = (detector.density_.distance(new[:, :-1]), new[:, -1])
    for term, (middle, high) in zip(terms, detector.places_, strict=True):
        assert (term > middle).mean() == pytest.approx(0.5, abs=0.05)
        assert (term > high).mean() == pytest.approx(0.05, abs=0.02)


def test_has_a_gradient(rng):
    detector = CleanSum().fit(rng.normal(size=(50, 4)))
    rows = torch.tensor(rng.normal(size=(2, 4)), requires_grad=True)
    detector.distance_of(rows).sum().backward()
    assert bool((rows.grad != 0).all())
