"""Compute metrics of detection and speaker verification, and their confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nip_audio.core.finite import require_finite_values
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
    """A value with its two-sided confidence interval.

    Attributes:
        value: Estimate on all units.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Return the three values, rounded to five decimals, as JSON."""
        return {
            "value": round(self.value, 5),
            "low": round(self.low, 5),
            "high": round(self.high, 5),
        }


@dataclass(frozen=True)
class Eer:
    """Equal error rate (EER) and the score threshold that gives it.

    Attributes:
        rate: Error rate in [0, 1] at which false acceptances and false rejections are equal.
        threshold: Score from which a trial is accepted.
    """

    rate: float
    threshold: float


def equal_error_rate(target_scores: Array, impostor_scores: Array) -> Eer:
    """Compute the equal error rate of a verification system that accepts scores ≥ threshold.

    Args:
        target_scores: Scores of same-speaker trials.
        impostor_scores: Scores of different-speaker trials.

    Returns:
        The rate, interpolated where the two error curves cross, and its threshold.

    Raises:
        InputError: If there are no same-speaker or no different-speaker scores.
    """
    from sklearn.metrics import roc_curve

    _require_scores(target_scores, impostor_scores)
    if len(target_scores) == 0 or len(impostor_scores) == 0:
        raise InputError(
            f"got {len(target_scores)} same-speaker and {len(impostor_scores)} different-speaker "
            "scores, the EER needs at least one of each; add trials"
        )
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
    # halfway to the next lower score: decisions stay the same, and no trial lies on the threshold
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
    """Compute the smallest detection cost over all thresholds (minDCF of NIST).

    The cost is normalised: 1 is the cost of always accepting or always rejecting, whichever is
    cheaper.

    Args:
        target_scores: Scores of same-speaker trials.
        impostor_scores: Scores of different-speaker trials.
        p_target: Prior probability of a same-speaker trial.
        c_miss: Cost of rejecting a same-speaker trial.
        c_false_alarm: Cost of accepting a different-speaker trial.

    Raises:
        InputError: If there are no same-speaker or different-speaker scores, the prior is outside
            (0, 1), or a cost is not positive.
    """
    from sklearn.metrics import roc_curve

    _require_scores(target_scores, impostor_scores)
    if len(target_scores) == 0 or len(impostor_scores) == 0:
        raise InputError(
            f"got {len(target_scores)} same-speaker and {len(impostor_scores)} different-speaker "
            "scores, minDCF needs at least one of each; add trials"
        )
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
    """Compute TKNC, the top-k neuron consistency of clean and defended inputs (NIP, Eq. 13).

    Args:
        before: (B, N) neuron outputs on the clean inputs.
        after: (B, N) neuron outputs on the same inputs after a defence.
        k: Number of strongest neurons to compare.

    Returns:
        (B,) overlap |top ∩ top'| / |top ∪ top'| of the k strongest neurons, in [0, 1].

    Raises:
        InputError: If the shapes differ, or there are fewer than k neurons.

    Example:
        >>> top_k_consistency(np.array([[3.0, 2.0, 1.0]]), np.array([[3.0, 1.0, 2.0]]), k=2)
        array([0.33333333])
    """
    if before.shape != after.shape or before.ndim != 2 or not 0 < k <= before.shape[1]:
        raise InputError(
            f"neuron outputs are {before.shape} and {after.shape} with k = {k}, expected two equal "
            "shapes (items, N) with N ≥ k ≥ 1; lower k, or compare the same layer"
        )
    chosen = []
    for values in (before, after):
        mask = np.zeros(values.shape, dtype=bool)
        np.put_along_axis(mask, np.argsort(-values, axis=1, kind="stable")[:, :k], True, axis=1)
        chosen.append(mask)
    shared = (chosen[0] & chosen[1]).sum(axis=1)
    return np.asarray(shared / (chosen[0] | chosen[1]).sum(axis=1))


def all_pairs_eer(scores: Array, names: Sequence[str]) -> Eer | None:
    """Compute the equal error rate over all pairs of recordings, by whether the speakers are equal.

    Args:
        scores: (N, N) scores of the pairs; only the part above the diagonal is used.
        names: Speaker of each of the N recordings.

    Returns:
        The equal error rate; None if no speaker has two recordings, or there is only one speaker.
    """
    owners = np.asarray(names)
    upper = np.triu_indices(len(owners), 1)
    same = (owners[:, None] == owners[None, :])[upper]
    if not same.any() or same.all():
        return None
    return equal_error_rate(scores[upper][same], scores[upper][~same])


def auroc(positive: Array, negative: Array) -> float:
    """Compute the area under the ROC curve (AUROC), where positives should score higher.

    Args:
        positive: Scores of the positives.
        negative: Scores of the negatives.

    Raises:
        InputError: If there are no positives or no negatives.
    """
    from sklearn.metrics import roc_auc_score

    _require_scores(positive, negative)
    if len(positive) == 0 or len(negative) == 0:
        raise InputError(
            f"got {len(positive)} positives and {len(negative)} negatives, expected at "
            "least one of each; add the missing ones"
        )
    truth = np.r_[np.ones(len(positive)), np.zeros(len(negative))]
    return float(roc_auc_score(truth, np.r_[positive, negative]))


def detection_rate(positive: Array, negative: Array, *, false_positive_rate: float) -> float:
    """Compute the share of positives that are detected at a given false-positive rate.

    Args:
        positive: Scores of the positives.
        negative: Scores of the negatives, which set the threshold.
        false_positive_rate: Largest share of negatives that may exceed the threshold.

    Raises:
        InputError: If there are no positives or no negatives, or the rate is outside (0, 1).
    """
    _require_scores(positive, negative)
    if len(positive) == 0 or len(negative) == 0 or not 0 < false_positive_rate < 1:
        raise InputError(
            f"got {len(positive)} positives, {len(negative)} negatives and the false-positive rate "
            f"{false_positive_rate}, expected at least one of each and a rate in (0, 1)"
        )
    threshold = np.quantile(negative, 1 - false_positive_rate, method="higher")
    return float((np.asarray(positive) > threshold).mean())


def _require_scores(positive: Array, negative: Array) -> None:
    """Refuse scores that are NaN or infinite, by which no trial can be decided."""
    require_finite_values({"positive": positive, "negative": negative}, of="the list of scores")


def bootstrap(
    statistic: Callable[[NDArray[np.intp]], float],
    size: int,
    *,
    seed: int,
    rounds: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Estimate a confidence interval by the percentile bootstrap.

    Args:
        statistic: Function from an array of unit indices to the value. Units should vary
            independently: speakers, for example, rather than trials that share a speaker.
        size: Number of units.
        seed: Seed of the resampling.
        rounds: Number of resamples. A resample on which the statistic raises ``InputError``, for
            example because a class is missing, is drawn again.
        level: Confidence level in (0, 1).

    Raises:
        InputError: If the statistic fails on most resamples.
    """
    rng = np.random.default_rng(seed)
    values: list[float] = []
    attempts = 0
    while len(values) < rounds:
        attempts += 1
        if attempts > 10 * rounds:
            raise InputError(
                "the statistic cannot be computed on most bootstrap resamples; add units of "
                "each class"
            )
        try:
            values.append(statistic(rng.integers(0, size, size)))
        except InputError:
            continue
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(statistic(np.arange(size)), float(low), float(high))
