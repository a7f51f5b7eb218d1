"""Average the AUROC over several attacks, or the difference of two detectors on the same clips.

AUROC is the area under the ROC curve. Intervals come from resampling speakers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nip_audio.core.metrics import Interval, bootstrap
from nip_audio.errors import InputError

__all__ = ["ROC_RATES", "Pair", "PairCounts", "Scored", "mean_auroc", "roc_points"]

Array = NDArray[np.float64]

ROC_RATES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""False-positive rates, measured on the clean clips, at which ROC curves have a point."""


@dataclass(frozen=True)
class Scored:
    """Scores of clips and the speaker of each.

    Attributes:
        scores: (n,) scores.
        speakers: Speaker of each clip, n names.
    """

    scores: Array
    speakers: tuple[str, ...]


Pair = tuple[Scored, Scored]
"""Scores of the attacked and of the clean clips of one cell."""


@dataclass(frozen=True)
class PairCounts:
    """Counts of pairs of an attacked and a clean clip, by the speakers of the two.

    With these, the AUROC of a bootstrap sample is a matrix product.

    Attributes:
        higher: (S, S) number of pairs in which the attacked clip scores higher; ties count half.
        pairs: (S, S) number of all pairs.
    """

    higher: Array
    pairs: Array

    @staticmethod
    def count(attacked: Scored, clean: Scored, speakers: Sequence[str]) -> PairCounts:
        """Compare every attacked clip with every clean one."""
        first, second = attacked.scores[:, None], clean.scores[None]
        higher = (first > second) + 0.5 * (first == second)
        mine, theirs = (_owners(side, speakers) for side in (attacked, clean))
        return PairCounts(mine.T @ higher @ theirs, np.outer(mine.sum(axis=0), theirs.sum(axis=0)))

    def auroc(self, drawn: Array) -> float:
        """Return the AUROC with each speaker counted as often as drawn.

        Args:
            drawn: (S,) how often each speaker was drawn.

        Raises:
            InputError: If there is no pair of a clean and an attacked clip of these speakers.
        """
        pairs = float(drawn @ self.pairs @ drawn)
        if pairs == 0:
            raise InputError(
                "got no pair of an attacked and a clean clip of these speakers; use more clips"
            )
        return float(drawn @ self.higher @ drawn) / pairs


def mean_auroc(
    pairs: Sequence[Pair], *, seed: int, rounds: int, ahead: Sequence[Pair] | None = None
) -> Interval:
    """Return the mean AUROC over cells with its interval, resampling speakers alike in all cells.

    Args:
        pairs: Attacked and clean scores of each cell.
        seed: Seed of the bootstrap.
        rounds: Number of bootstrap samples.
        ahead: Scores of another detector on the same clips; if given, the result is the other
            detector's mean AUROC minus this one's.

    Raises:
        InputError: If the speakers of a cell cannot be resampled with both sides in it.
    """
    speakers = sorted({name for pair in pairs for side in pair for name in side.speakers})
    own = [PairCounts.count(*pair, speakers) for pair in pairs]
    other = None if ahead is None else [PairCounts.count(*pair, speakers) for pair in ahead]

    def statistic(rows: NDArray[np.intp]) -> float:
        drawn = np.bincount(rows, minlength=len(speakers)).astype(np.float64)
        mean = float(np.mean([counts.auroc(drawn) for counts in own]))
        if other is None:
            return mean
        return float(np.mean([counts.auroc(drawn) for counts in other])) - mean

    return bootstrap(statistic, len(speakers), seed=seed, rounds=rounds)


def roc_points(attacked: Array, clean: Array) -> list[float]:
    """Return the detection rate at each false-positive rate of ``ROC_RATES``."""
    return [float((attacked > np.quantile(clean, 1 - rate)).mean()) for rate in ROC_RATES]


def _owners(side: Scored, speakers: Sequence[str]) -> Array:
    """Encode the speaker of each clip as one-hot rows, (n, S)."""
    same = np.asarray(side.speakers)[:, None] == np.asarray(speakers)[None]
    return np.asarray(same, dtype=np.float64)
