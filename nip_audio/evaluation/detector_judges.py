"""Fit detectors to measured rows, with thresholds for a stated false-positive rate."""

from __future__ import annotations

from collections.abc import Callable
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
    "OWN_SCORE",
    "RATES",
    "Known",
    "Part",
    "RowJudge",
    "clean_judge",
    "published_judge",
    "trained_judge",
]

Array = NDArray[np.float64]

CLEAN_ONLY = "NCCR and decision, clean only"
"""Name of the detector fitted on clean clips alone, on NCCR and on changes of the decision under
the same noise; adaptive attackers attack it with the model."""

OWN_SCORE = "its score"
"""How a detector is called that judges by a measure's own score, but not as published."""

RATES = (0.05, 0.01)
"""False-positive rates at which clips are flagged."""

_FOLDS = 5


@dataclass(frozen=True)
class Known:
    """Measured rows and the speaker of each.

    Attributes:
        rows: (n, F) values of a measure.
        speakers: Speaker of each row, n names.
    """

    rows: Array
    speakers: tuple[str, ...]

    def __add__(self, other: Known) -> Known:
        """Append the rows of another."""
        return Known(np.concatenate([self.rows, other.rows]), (*self.speakers, *other.speakers))


@dataclass(frozen=True)
class Part:
    """A score function with its scores of clean rows that it was not fitted on.

    Attributes:
        score: Function of (n, F) rows that returns (n,) scores, high for attacked clips.
        clean: (m,) scores of held-out clean rows.
        fitted: Fitted pipeline that computes the score; None if nothing was fitted.
    """

    score: Callable[[Array], Array]
    clean: Array
    fitted: Pipeline | None = None

    def at_least(self, rows: Array) -> NDArray[np.int64]:
        """Count, for each row, the clean scores that are at least as high, (n,)."""
        below = np.searchsorted(np.sort(self.clean), self.score(rows), side="left")
        return np.asarray(len(self.clean) - below)


@dataclass(frozen=True)
class RowJudge:
    """A detector: a score of measured rows, high for attacked clips, with its thresholds.

    With one part, p-values are those of split conformal prediction. With several they are
    cross-conformal (Vovk 2015): each part compares a row with the clean rows held out from it, so
    that scores of different detectors need not have the same scale.

    Attributes:
        name: Name of the detector in tables.
        knows: What the detector was fitted on, in words.
        measure: Name of the measure whose rows it scores.
        score: Function of (n, F) rows that returns (n,) scores; ranks clips.
        parts: Score functions that decide which clips are flagged.

    Raises:
        CalibrationError: If there are too few clean rows for the smallest of ``RATES``.
    """

    name: str
    knows: str
    measure: str
    score: Callable[[Array], Array]
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        """Check that there are enough clean rows."""
        conformal_threshold(np.concatenate([part.clean for part in self.parts]), min(RATES))

    def p_values(self, rows: Array) -> Array:
        """Return conformal p-values, (n,): shares of clean rows with a score at least as high."""
        count = sum(len(part.clean) for part in self.parts)
        return np.asarray((1 + sum(part.at_least(rows) for part in self.parts)) / (count + 1))

    def flagged(self, rows: Array, rate: float) -> NDArray[np.bool_]:
        """Return which rows are flagged at a false-positive rate, (n,)."""
        return self.p_values(rows) <= rate + 1e-9


def clean_judge(
    name: str,
    measure: str,
    clean: Known,
    estimator: BaseEstimator,
    *,
    copies: Known | None = None,
    knows: str = "clean clips",
) -> RowJudge:
    """Fit a detector on clean rows alone.

    Args:
        name: Name of the detector.
        measure: Name of the measure that the rows come from.
        clean: Rows of clean clips of the ``calibrate`` role.
        estimator: Estimator with ``score_samples``, high for normal rows.
        copies: Rows of the same clips after harmless changes; clean as well, but not counted for
            the thresholds.
        knows: What the detector is fitted on, in words.
    """
    together = clean if copies is None else clean + copies
    fitted = clone(estimator).fit(together.rows)
    folds = min(_FOLDS, len(set(together.speakers)))
    held_out = out_of_fold_distances(estimator, together.rows, together.speakers, folds=folds)
    part = Part(lambda rows: -fitted.score_samples(rows), held_out[: len(clean.rows)], fitted)
    return RowJudge(name, knows, measure, part.score, (part,))


def trained_judge(
    name: str,
    measure: str,
    clean: Known,
    attacked: Known,
    *,
    signed: int,
    copies: Known | None = None,
    knows: str,
) -> RowJudge:
    """Fit a perceptron on clean rows and on attacks that the defender made.

    A perceptron fitted on all rows ranks clips. Five others, each fitted without a fifth of the
    speakers, decide which clips are flagged. Two perceptrons do not share a scale of log-odds: when
    fitted on harmless changes too, the one that knows all rows put 6 % of clean clips above the
    threshold that the five set for 1 %.

    Args:
        name: Name of the detector.
        measure: Name of the measure that the rows come from.
        clean: Rows of clean clips of the ``calibrate`` role.
        attacked: Rows of attacked clips of the same role.
        signed: Number of signed changes among the entries, see ``LogRates``.
        copies: Rows of harmlessly changed clips of the same role; clean as well.
        knows: What the detector is fitted on, in words.
    """
    together = clean if copies is None else clean + copies
    both = together + attacked
    labels = np.repeat([0, 1], [len(together.rows), len(attacked.rows)])
    model: Pipeline = make_pipeline(LogRates(signed=signed), AttackPerceptron())
    fitted: Pipeline = clone(model).fit(both.rows, labels)
    parts = []
    for learn, rest in GroupKFold(_FOLDS).split(both.rows, groups=both.speakers):
        part = clone(model).fit(both.rows[learn], labels[learn])
        held_out = part.decision_function(both.rows[rest[rest < len(clean.rows)]])
        parts.append(Part(part.decision_function, held_out, part))
    return RowJudge(name, knows, measure, fitted.decision_function, tuple(parts))


def published_judge(measure: Measure, clean: Array) -> RowJudge:
    """Make a detector of a measure's own score; only its threshold comes from clean rows.

    It is called "as published" only where the measure is.
    """
    part = Part(measure.suspicion, measure.suspicion(clean))
    name = f"{measure.name}, {'as published' if measure.as_published else OWN_SCORE}"
    return RowJudge(name, "threshold only", measure.name, part.score, (part,))
