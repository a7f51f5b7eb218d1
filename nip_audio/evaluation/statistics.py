"""Statistics of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from nip_audio.core.metrics import Interval, bootstrap
from nip_audio.errors import InputError

__all__ = ["MIN_SUCCESSES", "proportion"]

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
