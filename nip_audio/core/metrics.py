"""Metrics of detection and verification, and their confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve

from nip_audio.errors import InputError

__all__ = [
    "Eer",
    "Interval",
    "all_pairs_eer",
    "auroc",
    "bootstrap",
    "detection_rate",
    "equal_error_rate",
    "min_dcf",
    "top_k_consistency",
]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A value with its two-sided confidence interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Return rounded plain values."""
        return {
            "value": round(self.value, 5),
            "low": round(self.low, 5),
            "high": round(self.high, 5),
        }


@dataclass(frozen=True)
class Eer:
    """Equal error rate and the score threshold that gives it."""

    rate: float
    threshold: float


def equal_error_rate(target_scores: Array, impostor_scores: Array) -> Eer:
    """EER of a verification system that accepts scores ≥ threshold.

    Args:
        target_scores: Scores of same-speaker trials.
        impostor_scores: Scores of different-speaker trials.

    Returns:
        The rate in [0, 1], interpolated where the two error curves cross, and a threshold.

    Raises:
        InputError: If one side is empty.
    """
    if len(target_scores) == 0 or len(impostor_scores) == 0:
        raise InputError("EER needs at least one same-speaker and one different-speaker trial")
    truth = np.r_[np.ones(len(target_scores)), np.zeros(len(impostor_scores))]
    scores = np.r_[target_scores, impostor_scores]
    false_accept, true_accept, thresholds = roc_curve(truth, scores, drop_intermediate=False)
    false_reject = 1 - true_accept
    crossing = int(np.argmax(false_accept >= false_reject))
    before = max(crossing - 1, 0)
    gap_before = false_reject[before] - false_accept[before]
    gap_after = false_accept[crossing] - false_reject[crossing]
    share = gap_before / (gap_before + gap_after) if gap_before + gap_after > 0 else 0.0
    rate = false_accept[before] + share * (false_accept[crossing] - false_accept[before])
    threshold = min(thresholds[crossing], scores.max())
    # halfway to the next score below: the same decisions here, and no new target at the very edge
    below = scores[scores < threshold]
    threshold = (threshold + below.max()) / 2 if below.size else threshold
    return Eer(float(rate), float(threshold))


def min_dcf(
    target_scores: Array,
    impostor_scores: Array,
    *,
    p_target: float = 0.01,
    c_miss: float = 1.0,
    c_false_alarm: float = 1.0,
) -> float:
    """Least detection cost over all thresholds, 1 being that of the better blind answer (NIST).

    Args:
        target_scores: Scores of same-speaker trials.
        impostor_scores: Scores of different-speaker trials.
        p_target: Prior of a same-speaker trial.
        c_miss: Cost of rejecting one.
        c_false_alarm: Cost of accepting a different-speaker trial.

    Raises:
        InputError: If one side is empty, the prior is outside (0, 1) or a cost is not positive.
    """
    if len(target_scores) == 0 or len(impostor_scores) == 0:
        raise InputError("minDCF needs at least one same-speaker and one different-speaker trial")
    if not 0 < p_target < 1 or min(c_miss, c_false_alarm) <= 0:
        raise InputError(
            f"p_target is {p_target}, costs {c_miss} and {c_false_alarm}; expected a prior in "
            "(0, 1) and costs > 0"
        )
    truth = np.r_[np.ones(len(target_scores)), np.zeros(len(impostor_scores))]
    false_accept, true_accept, _ = roc_curve(
        truth, np.r_[target_scores, impostor_scores], drop_intermediate=False
    )
    miss, alarm = c_miss * p_target, c_false_alarm * (1 - p_target)
    cost = miss * (1 - true_accept) + alarm * false_accept
    return float(cost.min() / min(miss, alarm))


def top_k_consistency(before: Array, after: Array, *, k: int = 5) -> Array:
    """TKNC: how far the k strongest neurons are the same (NIP, Eq. 13).

    Args:
        before: (B, N) outputs of neurons on clean inputs.
        after: (B, N) on the inputs behind a defence.
        k: Neurons looked at.

    Returns:
        (B,) |top ∩ top'| / |top ∪ top'| in [0, 1].

    Raises:
        InputError: If the shapes differ, or there are fewer than k neurons.

    Example:
        >>> top_k_consistency(np.array([[3.0, 2.0, 1.0]]), np.array([[3.0, 1.0, 2.0]]), k=2)
        array([0.33333333])
    """
    if before.shape != after.shape or before.ndim != 2 or not 0 < k <= before.shape[1]:
        raise InputError(
            f"got neurons {before.shape} and {after.shape} with k = {k}, expected equal (items, N) "
            "with N ≥ k ≥ 1"
        )
    chosen = []
    for values in (before, after):
        mask = np.zeros(values.shape, dtype=bool)
        np.put_along_axis(mask, np.argsort(-values, axis=1, kind="stable")[:, :k], True, axis=1)
        chosen.append(mask)
    shared = (chosen[0] & chosen[1]).sum(axis=1)
    return np.asarray(shared / (chosen[0] | chosen[1]).sum(axis=1))


def all_pairs_eer(scores: Array, names: Sequence[str]) -> Eer | None:
    """EER over all pairs of recordings: same name, or not.

    Args:
        scores: (N, N); what is above the diagonal is used.
        names: N names of speakers.

    Returns:
        None if no speaker has two recordings, or there is only one speaker.
    """
    owners = np.asarray(names)
    upper = np.triu_indices(len(owners), 1)
    same = (owners[:, None] == owners[None, :])[upper]
    if not same.any() or same.all():
        return None
    return equal_error_rate(scores[upper][same], scores[upper][~same])


def auroc(positive: Array, negative: Array) -> float:
    """Area under the ROC curve of "positive scores higher".

    Raises:
        InputError: If one side is empty.
    """
    if len(positive) == 0 or len(negative) == 0:
        raise InputError("AUROC needs at least one positive and one negative")
    truth = np.r_[np.ones(len(positive)), np.zeros(len(negative))]
    return float(roc_auc_score(truth, np.r_[positive, negative]))


def detection_rate(positive: Array, negative: Array, *, false_positive_rate: float) -> float:
    """Share of positives above the threshold that at most this share of negatives exceeds.

    Raises:
        InputError: If one side is empty or the rate is outside (0, 1).
    """
    if len(positive) == 0 or len(negative) == 0 or not 0 < false_positive_rate < 1:
        raise InputError("detection needs positives, negatives and a rate in (0, 1)")
    threshold = np.quantile(negative, 1 - false_positive_rate, method="higher")
    return float((np.asarray(positive) > threshold).mean())


def bootstrap(
    statistic: Callable[[NDArray[np.intp]], float],
    size: int,
    *,
    seed: int,
    rounds: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap.

    Args:
        statistic: Takes an index array into the ``size`` units and returns the value. Units should
            be what varies independently: speakers rather than trials that share one.
        size: Number of units.
        seed: Of the resampling.
        rounds: Resamples; those on which the statistic raises ``InputError`` (one class missing)
            are drawn anew.
        level: Confidence level.
    """
    rng = np.random.default_rng(seed)
    values: list[float] = []
    attempts = 0
    while len(values) < rounds:
        attempts += 1
        if attempts > 10 * rounds:
            raise InputError("the bootstrap statistic cannot be computed on most resamples")
        try:
            values.append(statistic(rng.integers(0, size, size)))
        except InputError:
            continue
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(statistic(np.arange(size)), float(low), float(high))
