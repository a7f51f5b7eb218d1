"""Choose a threshold for an aim, and say what is known of it from the trials.

The aim is a false-acceptance rate (FAR), a prior with costs, or the equal error rate (EER). Every
number has its interval by resampling groups (``trial_scores``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nip_audio.core.metrics import Interval
from nip_audio.errors import InputError
from nip_audio.models.log_ratios import (
    LogRatios,
    compare_calibrations,
    fit_log_ratios,
    min_cllr,
    require_prior,
    trial_costs,
)
from nip_audio.models.trial_scores import (
    ErrorRates,
    GroupBootstrap,
    TrialScores,
    crossing,
    rate_interval,
)

__all__ = ["Aim", "ErrorCurve", "OperatingPoint", "find_operating_point"]

Array = NDArray[np.float64]

_SHOWN = 200  # thresholds of the curve
_P_TARGET = 0.01  # prior of minDCF where none is stated, NIST's


@dataclass(frozen=True)
class Aim:
    """What a threshold is chosen for; with neither a rate nor a prior, equal error rates.

    Attributes:
        far: False-acceptance rate that is not to be exceeded; None for another aim.
        prior: Prior of a trial within a group, whose expected cost is to be least; None for another
            aim. The minimum of the detection cost (minDCF) is at this prior, or else at 0.01.
        c_miss: Cost of rejecting a trial within a group.
        c_false_alarm: Cost of accepting a trial of two groups.

    Raises:
        InputError: If both a rate and a prior are given, or a number makes no sense.
    """

    far: float | None = None
    prior: float | None = None
    c_miss: float = 1.0
    c_false_alarm: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no aim."""
        if self.far is not None and self.prior is not None:
            raise InputError("got a FAR and a prior, expected one aim; leave one out")
        if self.far is not None and not 0 < self.far < 1:
            raise InputError(
                f"the FAR is {self.far}, expected a share in (0, 1); pass, e.g., 0.001 for one "
                "false acceptance in a thousand impostors"
            )
        if self.prior is not None:
            require_prior(self.prior)
        if not (0 < self.c_miss < np.inf and 0 < self.c_false_alarm < np.inf):
            raise InputError(
                f"the costs are {self.c_miss} and {self.c_false_alarm}, expected numbers above 0"
            )

    def __str__(self) -> str:
        """Return the aim in words."""
        if self.far is not None:
            return f"FAR {100 * self.far:g} %"
        if self.prior is None:
            return "equal error rate"
        costs = (
            ""
            if self.c_miss == self.c_false_alarm == 1
            else (f", costs {self.c_miss:g} (miss) and {self.c_false_alarm:g} (false alarm)")
        )
        return f"prior {self.prior:g}{costs}"

    @property
    def p_target(self) -> float:
        """Prior of the detection cost."""
        return _P_TARGET if self.prior is None else self.prior

    def costs(self, accepted: Array, rejected: Array) -> Array:
        """Return the detection cost of error rates; 1 is the least that a constant answer costs."""
        miss, alarm = self.c_miss * self.p_target, self.c_false_alarm * (1 - self.p_target)
        return (miss * rejected + alarm * accepted) / min(miss, alarm)

    def place(self, accepted: Array, rejected: Array) -> NDArray[np.intp]:
        """Return the number of the threshold chosen, (R,), of error rates (R, T)."""
        if self.far is not None:
            return np.asarray(np.argmax(accepted <= self.far, axis=1))
        if self.prior is not None:
            return np.asarray(np.argmin(self.costs(accepted, rejected), axis=1))
        return crossing(accepted, rejected)[1]


@dataclass(frozen=True, eq=False)
class ErrorCurve:
    """Error rates by threshold with their intervals.

    Attributes:
        thresholds: (K,) ascending.
        far: (3, K) false-acceptance rate, and the lower and upper ends of its interval.
        frr: (3, K) false-rejection rate, likewise.
    """

    thresholds: Array
    far: Array
    frr: Array


@dataclass(frozen=True, eq=False)
class OperatingPoint:
    """A threshold, what it does, and how well the scores tell the two kinds of trial apart.

    Attributes:
        aim: What the threshold was chosen for.
        threshold: Score from which a trial is accepted.
        far: False-acceptance rate at this threshold.
        frr: False-rejection rate at this threshold.
        eer: Equal error rate.
        min_dcf: Least detection cost over all thresholds, at the prior and costs of the aim.
        ratios: Calibration of scores to log-likelihood ratios.
        cllr: Cost of these ratios in bits, on the trials that they were fitted to.
        min_cllr: Least cost of monotonic ratios of these scores.
        unseen_cllr: Cost on groups that were left out of the fit, by kind of calibration; None with
            too few groups.
        parts: FAR and FRR at the threshold and the EER, by condition; see ``find_operating_point``.
        curve: Error rates at other thresholds.
        targets: Number of trials within a group.
        impostors: Number of trials between groups.
        groups: Number of groups.
        pairs: Number of pairs of groups that have trials.
        rounds: Resamples of the bootstrap.
        seed: Seed of the bootstrap.
    """

    aim: Aim
    threshold: Interval
    far: Interval
    frr: Interval
    eer: Interval
    min_dcf: Interval
    ratios: LogRatios
    cllr: Interval
    min_cllr: float
    unseen_cllr: Mapping[str, float] | None
    parts: Mapping[str, Mapping[str, Any]]
    curve: ErrorCurve
    targets: int
    impostors: int
    groups: int
    pairs: int
    rounds: int
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Return rounded JSON values; groups are speakers there."""
        unseen = self.unseen_cllr
        return {
            "aim": {
                "far": self.aim.far,
                "prior": self.aim.prior,
                "c_miss": self.aim.c_miss,
                "c_false_alarm": self.aim.c_false_alarm,
            },
            "threshold": self.threshold.to_json(),
            "far": self.far.to_json(),
            "frr": self.frr.to_json(),
            "eer": self.eer.to_json(),
            "min_dcf": {"p_target": self.aim.p_target, **self.min_dcf.to_json()},
            "llr": {
                "slope": round(self.ratios.slope, 6),
                "offset": round(self.ratios.offset, 6),
                "prior": self.ratios.prior,
            },
            "cllr": self.cllr.to_json(),
            "min_cllr": round(self.min_cllr, 5),
            "unseen_cllr": unseen and {name: round(value, 5) for name, value in unseen.items()},
            "conditions": {
                name: {
                    key: value.to_json() if isinstance(value, Interval) else value
                    for key, value in part.items()
                }
                for name, part in self.parts.items()
            },
            "targets": self.targets,
            "impostors": self.impostors,
            "speakers": self.groups,
            "pairs_of_speakers": self.pairs,
            "rounds": self.rounds,
            "seed": self.seed,
        }


def find_operating_point(
    trials: TrialScores,
    aim: Aim | None = None,
    *,
    conditions: Mapping[str, NDArray[np.bool_]] | None = None,
    rounds: int = 1000,
    seed: int = 0,
) -> OperatingPoint:
    """Choose a threshold from scored trials, and measure everything at it.

    Args:
        trials: Scored trials.
        aim: What the threshold is for; None is the equal error rate.
        conditions: By name, which trials (n,) are of a condition, such as a channel. The threshold
            is one for all; each condition says what it does there. One without both kinds of trial
            has numbers only.
        rounds: Resamples of the bootstrap.
        seed: Seed of the bootstrap.

    Raises:
        InputError: If there are fewer than three groups, or trials within a group score no higher
            than others.

    Example:
        >>> scores = [0.9, 0.8, 0.7, 0.1, 0.2, 0.3]
        >>> trials = TrialScores.of(scores, list("abcabc"), list("abcbca"))
        >>> point = find_operating_point(trials, rounds=50)
        >>> point.threshold.value, point.eer.value
        (0.5, 0.0)
    """
    aim = aim or Aim()
    rates = ErrorRates(trials)
    boot = GroupBootstrap(trials, rounds=rounds, seed=seed)
    place = int(aim.place(*(row[None] for row in rates.whole))[0])
    ratios = fit_log_ratios(trials, prior=0.5 if aim.prior is None else aim.prior)
    measured, curve = _measured(rates, boot, aim, place)
    return OperatingPoint(
        aim=aim,
        **measured,
        ratios=ratios,
        cllr=_cllr(trials, ratios, boot),
        min_cllr=min_cllr(trials),
        unseen_cllr=compare_calibrations(trials, prior=ratios.prior, seed=seed),
        parts={
            name: _condition(trials, flags, measured["threshold"].value, rounds, seed)
            for name, flags in (conditions or {}).items()
        },
        curve=curve,
        targets=int(trials.same.sum()),
        impostors=int((~trials.same).sum()),
        groups=len(boot.groups),
        pairs=rates.pairs,
        rounds=rounds,
        seed=seed,
    )


def _measured(
    rates: ErrorRates, boot: GroupBootstrap, aim: Aim, place: int
) -> tuple[dict[str, Interval], ErrorCurve]:
    """Return what is measured at a threshold and besides, and the curve of all thresholds."""
    size = len(rates.thresholds)
    shown = np.unique(np.linspace(0, size - 1, min(size, _SHOWN)).round().astype(int))

    def statistics(weights: Array) -> Array:
        accepted, rejected = rates(weights)
        single = [
            rates.thresholds[aim.place(accepted, rejected)],
            accepted[:, place],
            rejected[:, place],
            crossing(accepted, rejected)[0],
            aim.costs(accepted, rejected).min(axis=1),
        ]
        parts = [np.stack(single, axis=1), accepted[:, shown], rejected[:, shown]]
        return np.concatenate(parts, axis=1)

    found = np.stack(boot.interval(statistics), axis=1)
    # Student's end has no bound: rejecting all costs 1 and takes a threshold above every score
    found[0, 2] = min(found[0, 2], rates.thresholds[-1])
    found[4, 2] = min(found[4, 2], 1.0)
    threshold, far, frr, eer, cost = (Interval(*map(float, ends)) for ends in found[:5])
    named = {
        "threshold": threshold,
        "far": _rate(far, rates.pairs),
        "frr": _rate(frr, rates.own_groups),
        "eer": _rate(eer, rates.own_groups),
        "min_dcf": cost,
    }
    bands = []
    for part, units in zip(np.split(found[5:], 2), (rates.pairs, rates.own_groups), strict=True):
        ends = [_rate(Interval(*map(float, row)), units) for row in part]
        bands.append(np.array([[one.value, one.low, one.high] for one in ends]).T)
    return named, ErrorCurve(rates.thresholds[shown], *bands)


def _rate(found: Interval, units: int) -> Interval:
    return rate_interval(found.value, found.low, found.high, units=units)


def _cllr(trials: TrialScores, ratios: LogRatios, boot: GroupBootstrap) -> Interval:
    same = trials.same
    costs = trial_costs(ratios.of(trials.scores), same)
    count = len(trials.groups)

    def mean(weights: Array, kind: NDArray[np.bool_]) -> Array:
        keys = trials.first[kind] * count + trials.second[kind]
        cells, cell = np.unique(keys, return_inverse=True)
        one, other = cells // count, cells % count
        times = np.where(one == other, weights[:, one], weights[:, one] * weights[:, other])
        total = times @ np.bincount(cell, costs[kind])
        return np.asarray(total / (times @ np.bincount(cell)))

    ends = boot.interval(lambda w: (mean(w, same) + mean(w, ~same)) / 2)
    return Interval(*map(float, ends))


def _condition(
    trials: TrialScores, flags: NDArray[np.bool_], threshold: float, rounds: int, seed: int
) -> dict[str, Any]:
    """Measure the trials of one condition at a threshold that was chosen on all."""
    own, other = int((trials.same & flags).sum()), int((~trials.same & flags).sum())
    numbers = {"targets": own, "impostors": other}
    if not own or not other:
        return {**numbers, "far": None, "frr": None, "eer": None}
    part = trials.part(flags)
    try:
        boot = GroupBootstrap(part, rounds=rounds, seed=seed)
    except InputError:  # too few groups for an interval, and so for a number
        return {**numbers, "far": None, "frr": None, "eer": None}
    rates = ErrorRates(part)
    found, _ = _measured(rates, boot, Aim(), rates.place(threshold))
    return {**numbers, **{name: found[name] for name in ("far", "frr", "eer")}}
