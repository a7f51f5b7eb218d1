"""Shares with their intervals, of clips grouped by speaker or of images one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nip_audio.core.metrics import Interval
from nip_audio.evaluation.statistics import proportion

__all__ = ["share_of"]


def share_of(
    hits: Tensor | NDArray[np.bool_] | Sequence[bool],
    owners: Sequence[object] | Tensor | None = None,
    *,
    seed: int,
) -> Interval:
    """Return a share with its 95 % interval.

    Args:
        hits: (n,) whether each item is counted.
        owners: Owner of each item; owners are resampled. None for n different owners.
        seed: Seed of the bootstrap.
    """
    whose = range(len(hits)) if owners is None else owners
    names = whose.tolist() if isinstance(whose, Tensor) else whose
    return proportion(np.asarray(hits), [str(name) for name in names], seed=seed)
