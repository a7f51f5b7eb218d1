from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nip_audio.detectors.consistency import consistency_scores
from nip_audio.errors import InputError


def near(direction: list[float], count: int, seed: int = 0, spread: float = 0.05) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.array(direction) + spread * rng.normal(size=(count, len(direction)))


def test_scores_by_hand():
    # the first two are the core; the third's cosines to them are 0 and 1/√2
    embeddings = np.array([[2.0, 0.0], [3.0, 3.0], [0.0, -1.0]])
    root = 0.5**0.5
    np.testing.assert_allclose(consistency_scores(embeddings), [root, root, -root / 2], atol=1e-12)


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_one_bad_of_three_scores_least(bad):
    embeddings = near([1.0, 0.0, 0.0, 0.0], 3)
    embeddings[bad] = [0.0, 1.0, 0.0, 0.0]
    scores = consistency_scores(embeddings)
    assert scores.argmin() == bad
    assert np.sort(scores)[1] > 0.95
    assert scores[bad] < 0.3


@pytest.mark.parametrize("bad", [(0, 1), (2, 4), (1, 3)])
def test_two_that_collude_of_five_do_not_become_the_measure(bad):
    embeddings = near([1.0, 0.0, 0.0, 0.0], 5, spread=0.2)
    embeddings[list(bad)] = [0.0, 1.0, 0.0, 0.0]  # they agree perfectly, the honest ones do not
    scores = consistency_scores(embeddings)
    assert set(np.argsort(scores)[:2].tolist()) == set(bad)


def test_of_two_neither_is_the_worse():
    first, second = consistency_scores(np.array([[1.0, 0.0], [0.6, 0.8]]))
    assert first == second == pytest.approx(0.6)


@pytest.mark.parametrize("embeddings", [np.ones((1, 3)), np.ones((0, 3)), np.ones(3)])
def test_fewer_than_two_are_an_error(embeddings):
    with pytest.raises(InputError, match="expected at least two rows"):
        consistency_scores(embeddings)


@settings(deadline=None, database=None, derandomize=True, max_examples=100)
@given(st.integers(2, 12), st.integers(2, 8), st.integers(0, 2**32 - 1), st.randoms())
def test_order_and_norms_do_not_matter(count, size, seed, random):
    # continuous values: where two sets are exactly as tight, which is the core is a matter of order
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(count, size)) + 0.5
    order = list(range(count))
    random.shuffle(order)
    scores = consistency_scores(embeddings)
    scaled = embeddings * rng.uniform(0.1, 10.0, size=(count, 1))
    np.testing.assert_allclose(consistency_scores(scaled[order]), scores[order], atol=1e-9)
    assert (np.abs(scores) <= 1 + 1e-12).all()


def test_input_is_left_alone():
    embeddings = near([1.0, 0.0], 4)
    copy = embeddings.copy()
    consistency_scores(embeddings)
    np.testing.assert_array_equal(embeddings, copy)


@pytest.mark.parametrize("bad", [0.0, np.nan])
def test_embedding_without_a_direction_is_an_error(bad):
    embeddings = near([1.0, 0.0], 3)
    embeddings[1] = bad
    with pytest.raises(InputError, match="zero or not finite"):
        consistency_scores(embeddings)
