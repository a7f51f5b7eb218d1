"""Models in the order of their NCCR, and how far that is the order of another quantity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from nip_audio.core.metrics import Interval, bootstrap
from nip_audio.errors import InputError
from nip_audio.evaluation.statistics import kendall, spearman

__all__ = ["Agreement", "Ranked", "agreement", "rank_models"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Ranked:
    """One model's distribution and place.

    Attributes:
        rank: From 1, the least NCCR, on.
        model: Name.
        mean: With its 95 % interval, by bootstrap over speakers.
        quartiles: Lower quartile, median, upper quartile.
        p_next: Of the paired Wilcoxon test against the next model, two-sided and not corrected for
            several comparisons; None for the last.
    """

    rank: int
    model: str
    mean: Interval
    quartiles: tuple[float, float, float]
    p_next: float | None

    def to_json(self) -> dict[str, Any]:
        """Return rounded plain values."""
        return {
            "rank": self.rank,
            "model": self.model,
            "mean": self.mean.to_json(),
            "quartiles": [round(q, 5) for q in self.quartiles],
            "p_next": None if self.p_next is None else float(f"{self.p_next:.3g}"),
        }


@dataclass(frozen=True)
class Agreement:
    """How far a rank by NCCR is one by accuracy under attack.

    Attributes:
        spearman: ρ of −NCCR and accuracy: 1 if less change always means more accuracy.
        spearman_p: Its p.
        kendall: τ-b of the same.
        kendall_p: Its p.
        same_order: Whether no pair of models is the wrong way round; ties of accuracy are none.
        models: How many models were compared: with few, no correlation is worth much.
    """

    spearman: float
    spearman_p: float
    kendall: float
    kendall_p: float
    same_order: bool
    models: int


def rank_models(rates: Mapping[str, Array], speakers: Sequence[str], *, seed: int) -> list[Ranked]:
    """Rank models by their mean NCCR, the least first.

    Args:
        rates: By model, (files,), of the same files in the same order.
        speakers: Of each file.
        seed: Of the bootstrap.

    Raises:
        InputError: If lengths differ.
    """
    if any(len(values) != len(speakers) for values in rates.values()):
        found = {name: len(values) for name, values in rates.items()}
        raise InputError(f"got NCCR of {found} files, expected {len(speakers)} for every model")
    order = sorted(rates, key=lambda name: float(rates[name].mean()))
    return [
        Ranked(
            rank=place + 1,
            model=name,
            mean=_mean(rates[name], speakers, seed=seed),
            quartiles=_quartiles(rates[name]),
            p_next=_paired(rates[name], rates[after]) if after is not None else None,
        )
        for place, (name, after) in enumerate(zip(order, [*order[1:], None], strict=True))
    ]


def agreement(nccr: Mapping[str, float], accuracy: Mapping[str, float]) -> Agreement:
    """Compare a rank by NCCR with one by accuracy under attack.

    Args:
        nccr: By model; less is taken for more robust.
        accuracy: By model, of the same models.

    Raises:
        InputError: With fewer than three models, other models on one side, or one side all alike.

    Example:
        >>> found = agreement({"a": 0.1, "b": 0.2, "c": 0.3}, {"a": 0.9, "b": 0.1, "c": 0.5})
        >>> found.same_order, round(found.kendall, 2)
        (False, 0.33)
    """
    if set(nccr) != set(accuracy):
        raise InputError(
            f"NCCR is of {sorted(nccr)}, accuracy of {sorted(accuracy)}; give both for each model"
        )
    stillness = [-nccr[name] for name in nccr]
    right = [accuracy[name] for name in nccr]
    rho, tau = spearman(stillness, right), kendall(stillness, right)
    wrong_way = any(
        (a - b) * (c - d) < 0
        for a, c in zip(stillness, right, strict=True)
        for b, d in zip(stillness, right, strict=True)
    )
    return Agreement(*rho, *tau, same_order=not wrong_way, models=len(right))


def _mean(values: Array, speakers: Sequence[str], *, seed: int) -> Interval:
    """Mean with its interval: speakers are resampled, or files where there is one speaker."""
    names = np.asarray(speakers)
    members = [np.flatnonzero(names == name) for name in np.unique(names)]
    if len(members) == 1:
        members = [np.array([row]) for row in range(len(values))]

    def mean(chosen: NDArray[np.intp]) -> float:
        return float(values[np.concatenate([members[i] for i in chosen])].mean())

    return bootstrap(mean, len(members), seed=seed)


def _quartiles(values: Array) -> tuple[float, float, float]:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float(low), float(middle), float(high)


def _paired(first: Array, second: Array) -> float:
    """Return p of Wilcoxon's signed-rank test; 1 where no file differs, of which it knows none."""
    if np.array_equal(first, second):
        return 1.0
    return float(wilcoxon(first, second).pvalue)
