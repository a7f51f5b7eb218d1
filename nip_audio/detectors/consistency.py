"""Does a recording sound like the rest of its speaker's folder? Robust to a bad minority."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nip_audio.errors import InputError

__all__ = ["consistency_scores"]

Array = NDArray[np.float64]


def consistency_scores(embeddings: Array) -> Array:
    """Score each recording by its mean cosine to the folder's core.

    The core is the tightest majority: of each recording together with its nearest
    ⌊n/2⌋ others, the set with the highest mean cosine. Fewer than half of the recordings, even if
    they agree with each other, therefore cannot become the measure. A core member is compared with
    the other members.

    Args:
        embeddings: (n ≥ 2, D), any norm.

    Returns:
        (n,) in [-1, 1]. For n = 2 both get the same score: which one is wrong cannot be told.

    Raises:
        InputError: If there are fewer than two, or one is zero or not finite.

    Example:
        >>> consistency_scores(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])).round(2).tolist()
        [1.0, 1.0, 0.05]
    """
    if embeddings.ndim != 2 or len(embeddings) < 2:
        raise InputError(f"embeddings are {embeddings.shape}, expected at least two rows")
    norms = np.linalg.norm(embeddings, axis=1)
    if not (np.isfinite(norms).all() and (norms > 0).all()):
        raise InputError("an embedding is zero or not finite, expected a direction")
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, np.inf)  # each is nearest to itself
    size = len(unit) // 2 + 1
    members = np.argsort(-cosines, axis=1, kind="stable")[:, :size]
    np.fill_diagonal(cosines, 0.0)
    tightness = [cosines[np.ix_(m, m)].sum() for m in members]
    core = members[int(np.argmax(np.round(tightness, 12)))]
    others = np.full(len(unit), len(core))
    others[core] -= 1
    return np.asarray(cosines[:, core].sum(axis=1) / others)
