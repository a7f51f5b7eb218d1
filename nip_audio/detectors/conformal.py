"""From distances to statements: p-values and thresholds with a stated false-positive rate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import GroupKFold

from nip_audio.errors import CalibrationError, InputError

__all__ = ["conformal_p_value", "conformal_threshold", "files_needed", "out_of_fold_distances"]

Array = NDArray[np.float64]


def out_of_fold_distances(
    detector: BaseEstimator, X: ArrayLike, groups: Sequence[str], *, folds: int = 5
) -> Array:
    """Distance of each clean row from a detector that did not see the row's group.

    A detector is closer to the rows it was fitted on than to new ones; thresholds from those would
    flag too much. Groups (speakers) are kept whole, so the distances are those of new speakers.

    Args:
        detector: Whose ``score_samples`` is a negative distance; it is cloned.
        X: (n, F) clean vectors.
        groups: Group of each row.
        folds: Parts.

    Returns:
        (n,) distances.

    Raises:
        CalibrationError: If there are fewer groups than folds.
    """
    rows = np.asarray(X, dtype=np.float64)
    if len(set(groups)) < folds:
        raise CalibrationError(
            f"clean audio of {len(set(groups))} speakers or files, expected at least {folds}; add "
            "more"
        )
    distances = np.empty(len(rows))
    for fit, held_out in GroupKFold(folds).split(rows, groups=groups):
        distances[held_out] = -clone(detector).fit(rows[fit]).score_samples(rows[held_out])
    return distances


def files_needed(false_positive_rate: float) -> int:
    """Fewest calibration files for which a threshold of this rate exists.

    Example:
        >>> files_needed(0.01)
        99
    """
    return int(np.ceil(1 / false_positive_rate - 1e-9)) - 1


def conformal_threshold(clean_distances: ArrayLike, false_positive_rate: float) -> float:
    """Return the distance above which a file is flagged.

    The ⌈(n+1)(1−rate)⌉-th smallest of n clean distances: a new clean file drawn as the calibration
    files were exceeds it with probability at most ``false_positive_rate`` (split conformal;
    approximately so with out-of-fold distances and several clips of a speaker).

    Raises:
        InputError: If the rate is outside (0, 1).
        CalibrationError: If there are too few files for the rate; the text says how many are
            needed.
    """
    if not 0 < false_positive_rate < 1:
        raise InputError(
            f"false-positive rate is {false_positive_rate}, expected a share in (0, 1) such as 0.01"
        )
    distances = np.sort(np.asarray(clean_distances, dtype=np.float64))
    if not np.isfinite(distances).all():
        raise CalibrationError("a clean distance is not finite; calibrate anew")
    rank = int(np.ceil((len(distances) + 1) * (1 - false_positive_rate) - 1e-9))
    if rank > len(distances):
        raise CalibrationError(
            f"{len(distances)} clean files cannot give a false-positive rate of "
            f"{false_positive_rate:g}; at least {files_needed(false_positive_rate)} are needed: "
            "add files, or allow a higher rate with --fpr"
        )
    return float(distances[max(rank, 1) - 1])


def conformal_p_value(clean_distances: ArrayLike, distance: float) -> float:
    """Return (1 + number of clean distances ≥ this one) / (n + 1)."""
    distances = np.asarray(clean_distances, dtype=np.float64)
    return float((1 + (distances >= distance).sum()) / (len(distances) + 1))
