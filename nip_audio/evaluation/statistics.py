"""Compute proportions, correlations and tests with the checks that an evaluation needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, kendalltau, spearmanr, ttest_rel

from nip_audio.core.metrics import Interval, bootstrap
from nip_audio.errors import InputError

__all__ = ["MIN_SUCCESSES", "kendall", "paired_t_test", "proportion", "spearman"]

MIN_SUCCESSES = 30
"""Smallest number of adversarial examples for which a defence success rate is given."""


def proportion(successes: NDArray[np.bool_], groups: Sequence[str], *, seed: int) -> Interval:
    """Return the share of successes with its 95 % interval.

    Args:
        successes: (n,) whether each item is a success, n ≥ 1.
        groups: Speaker of each item; speakers are resampled, as one speaker's clips are alike.
        seed: Seed of the bootstrap.

    Raises:
        InputError: If there is no item, or the two differ in length.
    """
    hits = np.asarray(successes, dtype=bool)
    if len(hits) == 0 or len(hits) != len(groups):
        raise InputError(f"got {len(hits)} successes of {len(groups)} items, expected as many, ≥ 1")
    names = np.asarray(groups)
    members = [np.flatnonzero(names == name) for name in np.unique(names)]
    if len({float(hits[rows].mean()) for rows in members}) == 1:
        # all bootstrap samples would agree, or there is one speaker: exact binomial interval
        exact = binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95)
        return Interval(float(hits.mean()), float(exact.low), float(exact.high))

    def mean(chosen: NDArray[np.intp]) -> float:
        return float(hits[np.concatenate([members[i] for i in chosen])].mean())

    return bootstrap(mean, len(members), seed=seed)


def paired_t_test(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Compare two methods on the same cells with a two-sided paired t-test (NIP, Sec. 5).

    Returns:
        The statistic t and its p-value.

    Raises:
        InputError: If there are fewer than two pairs, a value is not finite, or all differences are
            equal, so that t is undefined.
    """
    a, b = _pairs(first, second, least=2)
    if np.ptp(a - b) < 1e-12:
        raise InputError("all differences are equal, so that t is undefined; give more cells")
    found = ttest_rel(a, b)
    return float(found.statistic), float(found.pvalue)


def spearman(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Compute Spearman's rank correlation.

    Returns:
        The correlation ρ and its p-value.

    Raises:
        InputError: If there are fewer than three pairs, a value is not finite, or all values on one
            side are equal.
    """
    found = spearmanr(*_ranked(first, second))
    return float(found.statistic), float(found.pvalue)


def kendall(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Compute Kendall's rank correlation over pairs, corrected for ties.

    Returns:
        The correlation τ-b and its p-value.

    Raises:
        InputError: If there are fewer than three pairs, a value is not finite, or all values on one
            side are equal.
    """
    found = kendalltau(*_ranked(first, second))
    return float(found.statistic), float(found.pvalue)


def _ranked(
    first: Sequence[float], second: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = _pairs(first, second, least=3)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        raise InputError(
            "all values on one side are equal and have no ranks; give values that vary"
        )
    return a, b


def _pairs(
    first: Sequence[float], second: Sequence[float], *, least: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if len(a) != len(b) or len(a) < least:
        raise InputError(f"got {len(a)} and {len(b)} values, expected at least {least} pairs")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("got values that are NaN or infinite; leave out cells without a value")
    return a, b
