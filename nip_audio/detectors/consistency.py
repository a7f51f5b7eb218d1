"""Score how well each recording matches the voice in its speaker's folder.

The score is robust to a minority of wrong recordings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nip_audio.errors import InputError

__all__ = ["consistency_scores"]

Array = NDArray[np.float64]


def consistency_scores(embeddings: Array, *, among: Sequence[int] | None = None) -> Array:
    """Score each recording by the mean cosine between its embedding and those of the core.

    The core is the tightest majority: among the sets of one recording and its ⌊n/2⌋ nearest others,
    the one with the highest mean cosine. A minority of wrong recordings therefore cannot become the
    reference, even if they agree with each other. A member of the core is compared with its other
    members.

    Args:
        embeddings: (n ≥ 2, D) embeddings of any norm.
        among: Rows from which the core is taken, two at least; None takes all.

    Returns:
        (n,) mean cosines in [-1, 1]. For n = 2 both are equal, since it is unknown which recording
        is wrong.

    Raises:
        InputError: If there are fewer than two embeddings, or one is zero or not finite.

    Example:
        >>> consistency_scores(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])).round(2).tolist()
        [1.0, 1.0, 0.05]
    """
    if embeddings.ndim != 2 or len(embeddings) < 2:
        raise InputError(
            f"embeddings have shape {embeddings.shape}, expected at least two rows, (n, D)"
        )
    norms = np.linalg.norm(embeddings, axis=1)
    if not (np.isfinite(norms).all() and (norms > 0).all()):
        raise InputError(
            "an embedding is zero or not finite, expected a finite vector other than zero; "
            "check the recordings"
        )
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, np.inf)  # each recording is a member of its own set
    rows = np.arange(len(unit)) if among is None else np.asarray(among)
    size = len(rows) // 2 + 1
    near = np.argsort(-cosines[np.ix_(rows, rows)], axis=1, kind="stable")[:, :size]
    members = rows[near]
    np.fill_diagonal(cosines, 0.0)
    tightness = [cosines[np.ix_(m, m)].sum() for m in members]
    core = members[int(np.argmax(np.round(tightness, 12)))]
    others = np.full(len(unit), len(core))
    others[core] -= 1
    return np.asarray(cosines[:, core].sum(axis=1) / others)
