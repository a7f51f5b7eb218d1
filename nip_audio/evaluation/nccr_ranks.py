"""Rank models by their NCCR (neuron coverage change rate), and compare the rank with accuracy."""

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
    """One model's rank and the distribution of its NCCR.

    Attributes:
        rank: Rank of the model; 1 has the lowest mean NCCR.
        model: Name of the model.
        mean: Mean NCCR with its 95 % interval, by bootstrap over speakers.
        quartiles: Lower quartile, median and upper quartile.
        p_next: p-value of the paired Wilcoxon test against the next model, two-sided and not
            corrected for several comparisons; None for the last model.
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
    """How far the rank by NCCR agrees with the rank by accuracy under attack.

    Attributes:
        spearman: Spearman's ρ of −NCCR and accuracy: 1 if less change always means more accuracy.
        spearman_p: p-value of ρ.
        kendall: Kendall's τ-b of −NCCR and accuracy.
        kendall_p: p-value of τ-b.
        same_order: Whether no pair of models is ordered the other way; equal accuracies never are.
        models: Number of models compared; with few, a correlation means little.
    """

    spearman: float
    spearman_p: float
    kendall: float
    kendall_p: float
    same_order: bool
    models: int


def rank_models(rates: Mapping[str, Array], speakers: Sequence[str], *, seed: int) -> list[Ranked]:
    """Rank models by their mean NCCR, lowest first.

    Args:
        rates: NCCR by model, (files,), for the same files in the same order.
        speakers: Speaker of each file.
        seed: Seed of the bootstrap.

    Raises:
        InputError: If the lengths differ.
    """
    if any(len(values) != len(speakers) for values in rates.values()):
        found = {name: len(values) for name, values in rates.items()}
        raise InputError(f"got NCCR of {found} files, expected {len(speakers)} files per model")
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
    """Compare the rank by NCCR with the rank by accuracy under attack.

    Args:
        nccr: NCCR by model; a lower one is taken as more robust.
        accuracy: Accuracy under attack of the same models.

    Raises:
        InputError: If there are fewer than three models, the two have different models, or all
            values of one are equal.

    Example:
        >>> found = agreement({"a": 0.1, "b": 0.2, "c": 0.3}, {"a": 0.9, "b": 0.1, "c": 0.5})
        >>> found.same_order, round(found.kendall, 2)
        (False, 0.33)
    """
    if set(nccr) != set(accuracy):
        raise InputError(
            f"got NCCR of {sorted(nccr)} and accuracy of {sorted(accuracy)}; give both for each "
            "model"
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
    """Return the mean with its interval, resampling speakers, or files if there is one speaker."""
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
    """Return the p-value of Wilcoxon's signed-rank test; 1 if no file differs."""
    if np.array_equal(first, second):
        return 1.0
    return float(wilcoxon(first, second).pvalue)
