"""How well the gate tells that two speakers of a folder are one voice, on strangers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nip_audio.core.metrics import Interval, bootstrap
from nip_audio.errors import InputError
from nip_audio.models.log_ratios import trial_costs
from nip_audio.models.same_voice import fit_same_voice
from nip_audio.screening.enrolment.limits import GateLimits
from nip_audio.screening.enrolment.speakers import Voices, nearest_voices
from studies._lib.shares import share_of
from studies.gate.clips import SEED

__all__ = ["Voice", "same_voices"]

_A_VOICE = 5
_FOLDS = 2
_ROUNDS = 1000

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Voice:
    """The recordings of one speaker, twice.

    Attributes:
        folder: (n, D) embeddings of the folder's recordings, those of one chapter first.
        later: (m, D) embeddings of other recordings.
    """

    folder: Array
    later: Array


def same_voices(voices: Mapping[str, Voice]) -> dict[str, Any]:
    """Return how the probability that two speakers are one voice turns out.

    Half of the speakers teach the ratios, with all of their recordings; the others are judged, and
    the other way round. Each of them is there twice: five recordings of the folder, and five later
    ones. Two different speakers are compared by the folders.
    """
    names = sorted(voices, key=int)
    part = np.random.default_rng(SEED).permutation(len(names)) % _FOLDS
    ratios = np.full((len(names), len(names)), np.nan)
    asked = np.zeros(len(names), dtype=bool)
    limit = GateLimits.of(None).speaker.most_same_voice
    for fold in range(_FOLDS):
        taught = [names[k] for k in np.flatnonzero(part != fold)]
        rows = [np.concatenate([voices[one].folder, voices[one].later]) for one in taught]
        owners = [one for one, found in zip(taught, rows, strict=True) for _ in found]
        fitted = fit_same_voice(owners, np.concatenate(rows))
        if fitted is None:
            raise InputError(f"{len(taught)} speakers teach no ratios, expected more recordings")
        held = np.flatnonzero(part == fold)
        first = np.stack([voices[names[k]].folder[:_A_VOICE].mean(axis=0) for k in held])
        later = np.stack([voices[names[k]].later[:_A_VOICE].mean(axis=0) for k in held])
        cosines = first @ first.T
        np.fill_diagonal(cosines, (first * later).sum(axis=1))
        ratios[np.ix_(held, held)] = fitted.of(cosines)
        told = Voices()
        for k in held:
            for row in voices[names[k]].folder[:_A_VOICE]:
                told.add(names[k], row)
        near = nearest_voices(told, fitted)
        asked[held] = [(near[names[k]].same or 0.0) > limit for k in held]
    return _summary(ratios, asked, limit)


def _summary(ratios: Array, asked: NDArray[np.bool_], limit: float) -> dict[str, Any]:
    size = len(ratios)
    same = np.eye(size, dtype=bool)
    compared = ~np.isnan(ratios)
    probabilities = 1 / (1 + np.exp(-np.where(compared, ratios, 0.0)))
    costs = trial_costs(np.where(compared, ratios, 0.0), same)
    brier = np.square(np.where(same, 1 - probabilities, probabilities))

    def interval(values: Array, kinds: Sequence[bool]) -> Interval:
        """Average a value over trials of one speaker, of two, or the means of both kinds."""

        def mean(drawn: NDArray[np.intp]) -> float:
            times = np.bincount(drawn, minlength=size).astype(float)
            weights = np.where(same, np.diag(times), np.outer(times, times)) * compared
            if not weights[~same].any():
                raise InputError("no two speakers of one half were drawn; draw again")
            parts = [same if kind else ~same for kind in kinds]
            return float(np.mean([np.average(values[p], weights=weights[p]) for p in parts]))

        return bootstrap(mean, size, seed=SEED, rounds=_ROUNDS)

    def share(above: Array, *, kind: bool) -> Interval:
        """Return a share of pairs; exact binomial if all agree, which a bootstrap cannot widen."""
        pairs = above[np.triu(compared & (same if kind else ~same))].astype(bool)
        if pairs.all() or not pairs.any():
            return share_of(pairs, seed=SEED)
        return interval(above, [kind])

    rows = []
    for most in (0.5, 0.9, limit, 0.99):
        above = (probabilities > most).astype(float)
        rows.append(
            {
                "above": most,
                "recall": share(above, kind=True),
                "mistaken": share(above, kind=False),
            }
        )
    return {
        "speakers": size,
        "recordings": _A_VOICE,
        "one_voice": int((same & compared).sum()),
        "two_voices": int((~same & compared).sum() // 2),
        "cllr": interval(costs, [True, False]),
        "brier": interval(brier, [True, False]),
        "rows": rows,
        "asked": int(asked.sum()),
    }
