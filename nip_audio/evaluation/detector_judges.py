"""Detectors fitted to measured rows, with thresholds of a stated false-positive rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline

from nip_audio.detectors.base import Measure
from nip_audio.detectors.conformal import conformal_threshold, out_of_fold_distances
from nip_audio.detectors.perceptron import AttackPerceptron
from nip_audio.detectors.rates import LogRates

__all__ = [
    "CLEAN_ONLY",
    "RATES",
    "Judge",
    "Known",
    "clean_judge",
    "published_judge",
    "trained_judge",
]

Array = NDArray[np.float64]

CLEAN_ONLY = "NCCR, clean only"
"""Name of the detector that an adaptive attacker attacks together with the model."""

RATES = (0.05, 0.01)
"""False-positive rates at which thresholds are set."""

_FOLDS = 5


@dataclass(frozen=True)
class Known:
    """Rows and the speaker of each.

    Attributes:
        rows: (n, F) of a measure.
        speakers: (n,).
    """

    rows: Array
    speakers: tuple[str, ...]

    def __add__(self, other: Known) -> Known:
        """Join."""
        return Known(np.concatenate([self.rows, other.rows]), (*self.speakers, *other.speakers))


@dataclass(frozen=True)
class Judge:
    """A score of measured rows that is high for attacked clips.

    Attributes:
        name: As tables call it.
        knows: What it was fitted to, in words.
        measure: Name of the measure whose rows it takes.
        score: (n, F) → (n,).
        thresholds: Score above which a clip is flagged, by false-positive rate.
        fitted: What the score comes from, if it was fitted.
    """

    name: str
    knows: str
    measure: str
    score: Callable[[Array], Array]
    thresholds: Mapping[float, float]
    fitted: Pipeline | None = None

    def flagged(self, rows: Array, rate: float) -> NDArray[np.bool_]:
        """Tell which rows are above the threshold set for a rate."""
        return np.asarray(self.score(rows) > self.thresholds[rate])


def clean_judge(
    name: str,
    measure: str,
    clean: Known,
    estimator: BaseEstimator,
    *,
    copies: Known | None = None,
    knows: str = "clean clips",
) -> Judge:
    """Fit to clean rows alone.

    Args:
        name: Of the judge.
        measure: Whose rows.
        clean: Of the ``calibrate`` role.
        estimator: With ``score_samples``, high for normal rows.
        copies: Of the same clips after harmless changes: clean as well, but not counted for the
            thresholds.
        knows: In words.
    """
    together = clean if copies is None else clean + copies
    fitted = clone(estimator).fit(together.rows)
    folds = min(_FOLDS, len(set(together.speakers)))
    held_out = out_of_fold_distances(estimator, together.rows, together.speakers, folds=folds)
    limits = _limits(held_out[: len(clean.rows)])
    return Judge(name, knows, measure, lambda rows: -fitted.score_samples(rows), limits, fitted)


def trained_judge(
    name: str,
    measure: str,
    clean: Known,
    attacked: Known,
    *,
    signed: int,
    copies: Known | None = None,
    knows: str,
) -> Judge:
    """Fit the perceptron to clean rows and to attacks of the defender's own making.

    Thresholds are those of clean rows of speakers whose rows, clean and attacked, were held out.

    Args:
        name: Of the judge.
        measure: Whose rows.
        clean: Of the ``calibrate`` role.
        attacked: Attacked clips of the same role.
        signed: Signed changes among the entries, see ``LogRates``.
        copies: Harmlessly changed clips of the same role: clean as well.
        knows: In words.
    """
    together = clean if copies is None else clean + copies
    both = together + attacked
    labels = np.repeat([0, 1], [len(together.rows), len(attacked.rows)])
    model: Pipeline = make_pipeline(LogRates(signed=signed), AttackPerceptron())
    fitted: Pipeline = clone(model).fit(both.rows, labels)
    held_out = np.empty(len(both.rows))
    for learn, rest in GroupKFold(_FOLDS).split(both.rows, groups=both.speakers):
        part = clone(model).fit(both.rows[learn], labels[learn])
        held_out[rest] = part.decision_function(both.rows[rest])
    limits = _limits(held_out[: len(clean.rows)])
    return Judge(name, knows, measure, fitted.decision_function, limits, fitted)


def published_judge(measure: Measure, clean: Array) -> Judge:
    """Take the score as its source publishes it; only the threshold comes from clean rows."""
    limits = _limits(measure.suspicion(clean))
    knows = "threshold only"
    return Judge(f"{measure.name}, as published", knows, measure.name, measure.suspicion, limits)


def _limits(clean_scores: Sequence[float] | Array) -> dict[float, float]:
    return {rate: conformal_threshold(clean_scores, rate) for rate in RATES}
