"""Tell whether two speakers are one voice, from the mean cosine between their recordings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nip_audio.models.log_ratios import LogRatios, fit_log_ratios
from nip_audio.models.trial_scores import TrialScores

__all__ = ["fit_same_voice"]

Array = NDArray[np.float64]

_RECORDINGS = 3  # as few as the enrolment gate asks of a speaker
_LEAST_SPEAKERS = 10
_MOST_VOICES = 2000


def fit_same_voice(owners: Sequence[str], embeddings: Array) -> LogRatios | None:
    """Fit log-likelihood ratios to mean cosines between recordings of one and of two speakers.

    Each speaker's recordings are taken three at a time, in their order, so that sessions are mostly
    apart; with fewer than six, half of them. All pairs of such voices are trials. Means of three
    vary less than single cosines, and more than those of speakers with many recordings, for whom
    the ratio is then nearer to zero than it could be.

    Args:
        owners: Speaker of each recording.
        embeddings: (n, D) embeddings of unit length.

    Returns:
        Ratios of one voice to two; None for fewer than ten speakers with two recordings or more,
        or if voices of one speaker are no more alike.
    """
    names, whose = np.unique(np.asarray(owners, dtype=str), return_inverse=True)
    means, speakers = [], []
    for number in range(len(names)):
        rows = np.flatnonzero(whose == number)
        size = min(_RECORDINGS, max(1, len(rows) // 2))
        for start in range(0, len(rows) - size + 1, size):
            means.append(embeddings[rows[start : start + size]].mean(axis=0))
            speakers.append(number)
    if len(means) > _MOST_VOICES:  # pairs grow with the square
        kept = np.linspace(0, len(means) - 1, _MOST_VOICES).astype(int)
        means, speakers = [means[k] for k in kept], [speakers[k] for k in kept]
    voices, of = np.array(means), np.array(speakers)
    first, second = np.triu_indices(len(voices), 1)
    same = of[first] == of[second]
    if len(np.unique(of[first[same]])) < _LEAST_SPEAKERS:
        return None
    scores = (voices @ voices.T)[first, second]
    if scores[same].mean() <= scores[~same].mean():
        return None
    return fit_log_ratios(TrialScores(scores, of[first], of[second], tuple(map(str, names))))
