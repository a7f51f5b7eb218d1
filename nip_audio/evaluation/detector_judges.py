"""Detectors fitted to measured rows, with thresholds of a stated false-positive rate."""

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
    "RATES",
    "Judge",
    "Known",
    "Part",
    "clean_judge",
    "published_judge",
    "trained_judge",
]

Array = NDArray[np.float64]

CLEAN_ONLY = "NCCR, clean only"
"""Name of the detector that an adaptive attacker attacks together with the model."""

RATES = (0.05, 0.01)
"""False-positive rates at which clips are flagged."""

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
class Part:
    """A score, and what it is of clean rows that it was not fitted to.

    Attributes:
        score: (n, F) → (n,), high for attacked clips.
        clean: (m,) scores of clean rows.
        fitted: What the score comes from, if it was fitted.
    """

    score: Callable[[Array], Array]
    clean: Array
    fitted: Pipeline | None = None

    def at_least(self, rows: Array) -> NDArray[np.int64]:
        """Count the clean scores that are as high as that of a row: (n,)."""
        below = np.searchsorted(np.sort(self.clean), self.score(rows), side="left")
        return np.asarray(len(self.clean) - below)


@dataclass(frozen=True)
class Judge:
    """A score of measured rows that is high for attacked clips, and what clean rows have of it.

    With one part p-values are those of split conformal prediction. With several they are
    cross-conformal (Vovk 2015): each part compares a row with the clean rows that were held out
    from it, so nothing rests on detectors of different rows having scores of one scale.

    Attributes:
        name: As tables call it.
        knows: What it was fitted to, in words.
        measure: Name of the measure whose rows it takes.
        score: (n, F) → (n,): ranks clips.
        parts: Say which clips are flagged.

    Raises:
        CalibrationError: If there are too few clean rows for the least of ``RATES``.
    """

    name: str
    knows: str
    measure: str
    score: Callable[[Array], Array]
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        """Check."""
        conformal_threshold(np.concatenate([part.clean for part in self.parts]), min(RATES))

    def p_values(self, rows: Array) -> Array:
        """Share of clean rows that look as much attacked, the row itself among them: (n,)."""
        count = sum(len(part.clean) for part in self.parts)
        return np.asarray((1 + sum(part.at_least(rows) for part in self.parts)) / (count + 1))

    def flagged(self, rows: Array, rate: float) -> NDArray[np.bool_]:
        """Tell which rows are flagged at a false-positive rate."""
        return self.p_values(rows) <= rate + 1e-9


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
    part = Part(lambda rows: -fitted.score_samples(rows), held_out[: len(clean.rows)], fitted)
    return Judge(name, knows, measure, part.score, (part,))


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

    Clips are ranked by a perceptron that knows all rows, and flagged by one each for five parts of
    the speakers, who are held out from it. The log-odds of two perceptrons are not on one scale:
    told of harmless changes, one that knows all rows passed the threshold of the five for 1 % with
    6 % of clean clips.

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
    parts = []
    for learn, rest in GroupKFold(_FOLDS).split(both.rows, groups=both.speakers):
        part = clone(model).fit(both.rows[learn], labels[learn])
        held_out = part.decision_function(both.rows[rest[rest < len(clean.rows)]])
        parts.append(Part(part.decision_function, held_out, part))
    return Judge(name, knows, measure, fitted.decision_function, tuple(parts))


def published_judge(measure: Measure, clean: Array) -> Judge:
    """Take the score as its source publishes it; only the threshold comes from clean rows."""
    part = Part(measure.suspicion, measure.suspicion(clean))
    name = f"{measure.name}, as published"
    return Judge(name, "threshold only", measure.name, part.score, (part,))
