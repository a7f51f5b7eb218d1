"""Conformal p-values and thresholds with a stated false-positive rate, from clean distances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nip_audio.core.finite import require_finite
from nip_audio.errors import CalibrationError, InputError

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

__all__ = [
    "FILES_FOR_TAIL",
    "TailFit",
    "conformal_p_value",
    "conformal_threshold",
    "exponential_tail",
    "files_needed",
    "fit_tail",
    "out_of_fold_distances",
    "q_values",
]

Array = NDArray[np.float64]


def out_of_fold_distances(
    detector: BaseEstimator, X: ArrayLike, groups: Sequence[str], *, folds: int = 5
) -> Array:
    """Return the distance of each clean row from a detector fitted without the row's group.

    Rows that a detector was fitted on lie closer to it than new rows, so that thresholds from them
    would flag too many files. Groups (speakers) are not split between folds: the distances are
    those of new speakers.

    Args:
        detector: Detector whose ``score_samples`` is a negative distance; it is cloned.
        X: (n, F) clean vectors.
        groups: Group of each row.
        folds: Number of folds.

    Returns:
        (n,) distances.

    Raises:
        CalibrationError: If there are fewer groups than folds.
    """
    from sklearn.base import clone
    from sklearn.model_selection import GroupKFold

    rows = np.asarray(X, dtype=np.float64)
    if len(set(groups)) < folds:
        raise CalibrationError(
            f"clean audio of {len(set(groups))} speakers or files, expected at least {folds}; add "
            "clean files of more speakers"
        )
    distances = np.empty(len(rows))
    for fit, held_out in GroupKFold(folds).split(rows, groups=groups):
        distances[held_out] = -clone(detector).fit(rows[fit]).score_samples(rows[held_out])
    return distances


def files_needed(false_positive_rate: float) -> int:
    """Return the least number of calibration files for which a threshold of this rate exists.

    Example:
        >>> files_needed(0.01)
        99
    """
    return int(np.ceil(1 / false_positive_rate - 1e-9)) - 1


def conformal_threshold(clean_distances: ArrayLike, false_positive_rate: float) -> float:
    """Return the distance above which a file is flagged.

    It is the ⌈(n+1)(1−rate)⌉-th smallest of n clean distances. A new clean file from the same
    distribution as the calibration files exceeds it with probability at most
    ``false_positive_rate`` (split conformal prediction; approximately so for out-of-fold distances
    and several clips per speaker).

    Raises:
        InputError: If the rate is outside (0, 1).
        CalibrationError: If there are too few files for the rate; the message says how many are
            needed.
    """
    if not 0 < false_positive_rate < 1:
        raise InputError(
            f"false-positive rate is {false_positive_rate}, expected a share in (0, 1); try 0.01"
        )
    distances = np.sort(np.asarray(clean_distances, dtype=np.float64))
    if not np.isfinite(distances).all():
        raise CalibrationError("a clean distance is not finite; calibrate anew")
    rank = int(np.ceil((len(distances) + 1) * (1 - false_positive_rate) - 1e-9))
    if rank > len(distances):
        raise CalibrationError(
            f"{len(distances)} clean files cannot give a false-positive rate of "
            f"{false_positive_rate:g}; at least {files_needed(false_positive_rate)} are needed: "
            "add files, or allow a higher rate with `fpr`"
        )
    return float(distances[max(rank, 1) - 1])


def conformal_p_value(clean_distances: ArrayLike, distance: float) -> float:
    """Return the conformal p-value, (1 + number of clean distances ≥ this one) / (n + 1).

    Raises:
        InputError: If the distance is not finite.
        CalibrationError: If a clean distance is not finite.
    """
    require_finite(distance=distance)
    distances = np.asarray(clean_distances, dtype=np.float64)
    if not np.isfinite(distances).all():
        raise CalibrationError("a clean distance is not finite; calibrate anew")
    return float((1 + (distances >= distance).sum()) / (len(distances) + 1))


def q_values(p_values: ArrayLike) -> Array:
    """Return the least false-discovery rate at which each file of a folder would be flagged.

    Source: adjusted p-values of Benjamini and Hochberg (1995): for m sorted p-values,
    qᵢ = min over j ≥ i of m·pⱼ / j.

    Args:
        p_values: (m,) p-values in (0, 1].

    Returns:
        (m,) q-values in (0, 1].

    Raises:
        InputError: If a p-value is out of range.

    Example:
        >>> q_values([0.001, 0.3, 0.02, 0.9]).round(3).tolist()
        [0.004, 0.4, 0.04, 0.9]
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p > 0) & (p <= 1)).all():
        raise InputError(
            f"p-values of shape {p.shape} are not all in (0, 1], expected (m,) that are"
        )
    order = np.argsort(-p, kind="stable")
    adjusted = p[order] * len(p) / np.arange(len(p), 0, -1)
    q = np.empty(len(p))
    q[order] = np.minimum.accumulate(adjusted)
    return q


@dataclass(frozen=True)
class TailFit:
    """Generalised Pareto distribution of clean distances above a limit.

    Attributes:
        limit: Distance at which the tail begins.
        share: Share of clean files beyond the limit.
        shape: Shape parameter of the distribution; positive means a heavy tail.
        scale: Scale parameter of the distribution, in units of the distance.
    """

    limit: float
    share: float
    shape: float
    scale: float

    def p_value(self, distance: float) -> float:
        """Estimate the share of clean files above a distance beyond the limit."""
        beyond = (distance - self.limit) / self.scale
        if self.shape == 0:
            survival = np.exp(-beyond)
        elif self.shape * beyond <= -1:  # above the upper end of the distribution
            survival = 0.0
        else:
            survival = np.exp(-np.log1p(self.shape * beyond) / self.shape)
        return float(max(self.share * survival, np.finfo(np.float64).tiny))

    def threshold(self, share: float) -> float:
        """Return the distance above which this share of clean files lies, at most ``self.share``.

        Example:
            >>> tail = TailFit(limit=2.0, share=0.1, shape=0.0, scale=0.5)
            >>> round(tail.p_value(tail.threshold(0.001)), 6)
            0.001
        """
        ratio = share / self.share
        if self.shape == 0:
            return self.limit - self.scale * float(np.log(ratio))
        return self.limit + self.scale * float(np.expm1(-self.shape * np.log(ratio))) / self.shape


_TAIL_SHARE = 0.1
_LEAST_TAIL = 20

FILES_FOR_TAIL = round(_LEAST_TAIL / _TAIL_SHARE)
"""Least number of clean files for which the tail of their distances can be fitted."""


def exponential_tail(clean_distances: ArrayLike) -> TailFit:
    """Fit an exponential tail to the largest tenth of clean distances.

    It has one parameter and needs fewer distances than ``fit_tail``; it suits log-odds, whose tails
    are light. Like every tail it is an extrapolation.

    Raises:
        CalibrationError: If there are fewer than 20 distances, or one is not finite.
    """
    distances = np.sort(np.asarray(clean_distances, dtype=np.float64))
    if len(distances) < _LEAST_TAIL or not np.isfinite(distances).all():
        raise CalibrationError(
            f"got {len(distances)} clean distances, expected at least {_LEAST_TAIL} finite ones; "
            "calibrate with more files"
        )
    beyond = max(2, round(_TAIL_SHARE * len(distances)))
    limit = float(distances[-beyond - 1])
    scale = max(float(np.mean(distances[-beyond:] - limit)), 1e-9)
    return TailFit(limit, beyond / len(distances), 0.0, scale)


def fit_tail(clean_distances: ArrayLike) -> TailFit:
    """Fit the tail of clean distances, for p-values smaller than conformal ones can be.

    The result is an extrapolation, not a guarantee: it assumes that the tail continues as it
    begins, whereas conformal p-values are valid for any distribution.

    Source: Pickands (1975), peaks over a threshold; the tail is the largest tenth.

    Raises:
        CalibrationError: If there are fewer than 200 files, so that the tail has fewer than 20
            distances, or a distance is not finite.
    """
    from scipy.stats import genpareto

    distances = np.sort(np.asarray(clean_distances, dtype=np.float64))
    if not np.isfinite(distances).all():
        raise CalibrationError("a clean distance is not finite; calibrate anew")
    count = int(len(distances) * _TAIL_SHARE)
    if count < _LEAST_TAIL:
        raise CalibrationError(
            f"{len(distances)} clean files are too few for the tail of their distances, expected "
            f"at least {FILES_FOR_TAIL}; add files, or use conformal p-values"
        )
    limit = float(distances[-count - 1])
    shape, _, scale = genpareto.fit(distances[-count:] - limit, floc=0.0)
    return TailFit(limit, count / len(distances), float(shape), float(scale))
