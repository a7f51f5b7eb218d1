from __future__ import annotations

import numpy as np
import pytest

from nip_audio.core.metrics import auroc
from nip_audio.errors import InputError
from nip_audio.evaluation.paired_auroc import ROC_RATES, PairCounts, Scored, mean_auroc, roc_points


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_area_under_the_curve_is_that_of_the_metric_for_any_resample(rng):
    speakers = ("a", "b", "c")
    attacked = Scored(rng.integers(0, 9, 20) / 3.0, tuple(rng.choice(speakers, 20)))
    clean = Scored(rng.integers(0, 6, 30) / 3.0, tuple(rng.choice(speakers, 30)))
    counts = PairCounts.count(attacked, clean, speakers)
    assert counts.auroc(np.ones(3)) == pytest.approx(auroc(attacked.scores, clean.scores))
    twice_a = [
        np.concatenate([side.scores[np.asarray(side.speakers) == name] for name in ("a", "a", "c")])
        for side in (attacked, clean)
    ]
    assert counts.auroc(np.array([2.0, 0.0, 1.0])) == pytest.approx(auroc(*twice_a))


def test_no_clip_of_the_drawn_speakers_is_an_error():
    counts = PairCounts.count(
        Scored(np.ones(2), ("a", "a")), Scored(np.zeros(2), ("b", "b")), ("a", "b")
    )
    with pytest.raises(InputError, match="no pair of an attacked and a clean clip"):
        counts.auroc(np.array([2.0, 0.0]))


def test_mean_over_cells_and_the_lead_over_another():
    names = tuple("abcdefgh")
    clean = Scored(np.zeros(8), names)
    perfect, blind = Scored(np.ones(8), names), Scored(np.zeros(8), names)
    found = mean_auroc([(perfect, clean), (blind, clean)], seed=1, rounds=20)
    assert (found.value, found.low, found.high) == (0.75, 0.75, 0.75)
    lead = mean_auroc([(blind, clean)], seed=1, rounds=20, ahead=[(perfect, clean)])
    assert lead.value == 0.5


def test_curve_by_hand():
    """Above 9, the 90 % quantile of 0…10, lie two of four; above 5, the median, three."""
    clean = np.arange(11.0)
    points = dict(zip(ROC_RATES, roc_points(np.array([3.0, 6.0, 9.5, 12.0]), clean), strict=True))
    assert points[0.1] == 0.5
    assert points[0.5] == 0.75
    assert points[1.0] == 1.0
