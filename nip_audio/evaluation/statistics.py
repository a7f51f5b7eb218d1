"""Statistics of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, kendalltau, spearmanr, ttest_rel

from nip_audio.core.metrics import Interval, bootstrap
from nip_audio.errors import InputError

__all__ = ["MIN_SUCCESSES", "kendall", "paired_t_test", "proportion", "spearman"]

MIN_SUCCESSES = 30
"""Fewer adversarial examples than this give no rate of their defence."""


def proportion(successes: NDArray[np.bool_], groups: Sequence[str], *, seed: int) -> Interval:
    """Return a share with its 95 % interval.

    Args:
        successes: (n ≥ 1,).
        groups: Speaker of each: speakers are resampled, since one speaker's clips share a voice.
        seed: Of the bootstrap.

    Raises:
        InputError: If there is nothing to average, or the two differ in length.
    """
    hits = np.asarray(successes, dtype=bool)
    if len(hits) == 0 or len(hits) != len(groups):
        raise InputError(f"got {len(hits)} successes of {len(groups)} items, expected as many, ≥ 1")
    names = np.asarray(groups)
    members = [np.flatnonzero(names == name) for name in np.unique(names)]
    if len({float(hits[rows].mean()) for rows in members}) == 1:
        # all resamples would agree, as where one speaker is all there is: exact binomial instead
        exact = binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95)
        return Interval(float(hits.mean()), float(exact.low), float(exact.high))

    def mean(chosen: NDArray[np.intp]) -> float:
        return float(hits[np.concatenate([members[i] for i in chosen])].mean())

    return bootstrap(mean, len(members), seed=seed)


def paired_t_test(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Compare two methods on the same cells, two-sided (as NIP, Sec. 5).

    Returns:
        t and p.

    Raises:
        InputError: With fewer than two pairs, if one is not finite, or if the differences are all
            alike, where t has no value.
    """
    a, b = _pairs(first, second, least=2)
    if np.ptp(a - b) < 1e-12:
        raise InputError("the differences are all alike: a t-test needs some that vary")
    found = ttest_rel(a, b)
    return float(found.statistic), float(found.pvalue)


def spearman(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Correlate ranks.

    Returns:
        ρ and p.

    Raises:
        InputError: With fewer than three pairs, if one is not finite, or if one side is all alike,
            which has no ranks.
    """
    found = spearmanr(*_ranked(first, second))
    return float(found.statistic), float(found.pvalue)


def kendall(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Correlate ranks by pairs; ties count on neither side.

    Returns:
        τ-b and p.

    Raises:
        InputError: As ``spearman``.
    """
    found = kendalltau(*_ranked(first, second))
    return float(found.statistic), float(found.pvalue)


def _ranked(
    first: Sequence[float], second: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = _pairs(first, second, least=3)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        raise InputError("one side is all alike: ranks need values that vary")
    return a, b


def _pairs(
    first: Sequence[float], second: Sequence[float], *, least: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if len(a) != len(b) or len(a) < least:
        raise InputError(f"got {len(a)} and {len(b)} values, expected at least {least} pairs")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("got values that are NaN or infinite; leave cells without a value out")
    return a, b
