"""Statistics of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, spearmanr, ttest_rel

from nip_audio.core.metrics import Interval, bootstrap
from nip_audio.errors import InputError

__all__ = ["MIN_SUCCESSES", "paired_t_test", "proportion", "spearman"]

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
    if hits.all() or not hits.any():  # all resamples would agree: exact binomial instead
        exact = binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95)
        return Interval(float(hits.mean()), float(exact.low), float(exact.high))
    names = np.asarray(groups)
    members = [np.flatnonzero(names == name) for name in np.unique(names)]

    def mean(chosen: NDArray[np.intp]) -> float:
        return float(hits[np.concatenate([members[i] for i in chosen])].mean())

    return bootstrap(mean, len(members), seed=seed)


def paired_t_test(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Compare two methods on the same cells, two-sided (as NIP, Sec. 5).

    Returns:
        t and p.

    Raises:
        InputError: With fewer than two pairs, or if the differences are all alike, where t has no
            value.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if len(a) != len(b) or len(a) < 2:
        raise InputError(f"got {len(a)} and {len(b)} values, expected at least two pairs")
    if np.ptp(a - b) < 1e-12:
        raise InputError("the differences are all alike: a t-test needs some that vary")
    found = ttest_rel(a, b)
    return float(found.statistic), float(found.pvalue)


def spearman(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Correlate ranks.

    Returns:
        ρ and p.

    Raises:
        InputError: With fewer than three pairs.
    """
    if len(first) != len(second) or len(first) < 3:
        raise InputError(
            f"got {len(first)} and {len(second)} values, expected at least three pairs"
        )
    found = spearmanr(first, second)
    return float(found.statistic), float(found.pvalue)
