"""Error rates of trials at every threshold, and their intervals by resampling groups.

A trial compares an item of one group with an item of another: of the same group it should be
accepted, of two groups rejected. Trials that share a group are alike, so that the trials say less
than their number suggests. The bootstrap therefore resamples groups, on both sides at once: a
trial within a group counts as often as its group is drawn, one between two groups as often as the
product of the two. Weights of groups multiply counts that are made once, so that a thousand
resamples of a million trials are a few sparse products.

The intervals are bias-corrected and accelerated (BCa; Efron 1987), and taken further out as
Student's t asks for few groups ("expanded percentiles"; Hesterberg 2015, Sec. 5.4), whose degrees
of freedom are Satterthwaite's: a statistic that hangs on few groups has fewer. The upper end is
never below that of Student's interval, because a few dozen groups mostly lack the pair most alike.
Plain percentiles are too short for them (docs/results/thresholds.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.stats import norm
from scipy.stats import t as student

from nip_audio.core.finite import require_finite_values
from nip_audio.core.metrics import Interval
from nip_audio.errors import InputError

__all__ = [
    "ErrorRates",
    "GroupBootstrap",
    "TrialScores",
    "bca_interval",
    "crossing",
    "rate_interval",
]

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Places = NDArray[np.intp]

Names = Sequence[str] | NDArray[np.str_]

LEVEL = 0.95
_MOST_CUTS = 2000  # of either kind; with fewer distinct scores every one is a threshold
_MOST_VALUES = 1 << 24  # weights of pairs of groups that are held at once
_TRIES = 10


@dataclass(frozen=True, eq=False)
class TrialScores:
    """Scores of trials, with the groups of both sides.

    Attributes:
        scores: (n,) scores; higher means more alike.
        first: (n,) number of the group of one side.
        second: (n,) number of the group of the other side.
        groups: Names of the groups.

    Raises:
        InputError: If a score is not finite, or there are no trials within or between groups.
    """

    scores: Array
    first: Places
    second: Places
    groups: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse scores from which no error rate follows."""
        require_finite_values({"scores": self.scores}, of="the trials")
        own = int(self.same.sum())
        if own == 0 or own == len(self.scores):
            raise InputError(
                f"got {own} trials of the same group and {len(self.scores) - own} of two groups, "
                "expected some of each; add trials, or items of more groups"
            )

    @staticmethod
    def of(scores: Array | Sequence[float], first: Names, second: Names) -> TrialScores:
        """Make trials of the names of their groups.

        Raises:
            InputError: If the three differ in length, or an error rate cannot follow from them.
        """
        values = np.asarray(scores, dtype=np.float64)
        if not values.shape == (len(first),) == (len(second),):
            raise InputError(
                f"got {values.shape} scores, {len(first)} and {len(second)} groups, expected one "
                "score and two groups for each trial"
            )
        names, numbers = np.unique(
            np.r_[np.asarray(first), np.asarray(second)], return_inverse=True
        )
        one, other = np.split(numbers.astype(np.intp), 2)
        return TrialScores(values, one, other, tuple(map(str, names)))

    @cached_property
    def same(self) -> Flags:
        """(n,) whether both sides are of one group."""
        return np.asarray(self.first == self.second)

    @property
    def targets(self) -> Array:
        """Scores of the trials within a group."""
        return self.scores[self.same]

    @property
    def impostors(self) -> Array:
        """Scores of the trials between two groups."""
        return self.scores[~self.same]

    def part(self, chosen: Flags) -> TrialScores:
        """Return some of the trials, of both kinds; the groups keep their numbers."""
        return TrialScores(
            self.scores[chosen], self.first[chosen], self.second[chosen], self.groups
        )


class GroupBootstrap:
    """Weights of groups: resamples, and one left out at a time.

    Args:
        trials: Trials whose groups are resampled.
        rounds: Number of resamples. One without a trial of either kind is drawn again.
        seed: Seed of the resampling.

    Attributes:
        groups: Numbers of the groups that occur.
        drawn: (rounds, G) times that each group is drawn.
        left_out: (m, G) ones, with a zero for one group that occurs.

    Raises:
        InputError: If there are fewer than three groups, or most resamples lack a kind of trial.
    """

    def __init__(self, trials: TrialScores, *, rounds: int, seed: int) -> None:
        """Draw the resamples."""
        total = len(trials.groups)
        self.groups = np.unique(np.r_[trials.first, trials.second])
        count = len(self.groups)
        if count < 3:
            raise InputError(
                f"the trials are of {count} groups, expected at least 3 to resample; add groups"
            )
        same = trials.same
        kinds = [(trials.first[k], trials.second[k]) for k in (same, ~same)]
        pairs = [np.unique(np.stack(kind), axis=1) for kind in kinds]

        def usable(weights: Array) -> Flags:
            kinds = [(weights[:, one] * weights[:, other]).any(axis=1) for one, other in pairs]
            return np.asarray(kinds[0] & kinds[1])

        rng = np.random.default_rng(seed)
        found: list[Array] = []
        for _ in range(_TRIES):
            weights = np.zeros((rounds, total))
            weights[:, self.groups] = rng.multinomial(count, np.full(count, 1 / count), rounds)
            found.append(weights[usable(weights)])
            if sum(map(len, found)) >= rounds:
                break
        else:
            raise InputError(
                "most resamples of the groups have no trial within a group or between two, "
                "expected trials of both kinds in many groups; add items"
            )
        self.drawn = np.concatenate(found)[:rounds]
        alone = np.ones((count, total))
        alone[np.arange(count), self.groups] = 0
        self.left_out = alone[usable(alone)]

    def interval(
        self, statistic: Callable[[Array], Array], value: Array | None = None
    ) -> tuple[Array, Array, Array]:
        """Return the value and both ends of the interval of a statistic.

        Args:
            statistic: Function of weights (R, G) that returns (R, …).
            value: (…) the statistic of all trials, if it is known.
        """
        whole = statistic(np.ones((1, self.drawn.shape[1])))[0] if value is None else value
        drawn, left_out = statistic(self.drawn), statistic(self.left_out)
        return whole, *bca_interval(whole, drawn, left_out, count=len(self.groups))


def bca_interval(
    value: Array, drawn: Array, left_out: Array, *, count: int, level: float = LEVEL
) -> tuple[Array, Array]:
    """Return both ends of a bias-corrected, accelerated and expanded interval (see above).

    Args:
        value: (…) statistic of all units.
        drawn: (R, …) statistic of R resamples.
        left_out: (m, …) statistic without one unit each.
        count: Number of units.
        level: Confidence level in (0, 1).

    Returns:
        Lower and upper ends, (…); they hold the value.
    """
    value = np.asarray(value, dtype=np.float64)
    gap = left_out.mean(axis=0) - left_out
    spread = np.square(gap).sum(axis=0)
    excess = len(gap) * (gap**4).sum(axis=0) - spread**2  # (kurtosis − 1) · spread²
    freedom = np.full_like(spread, count - 1)
    np.divide(2 * count * spread**2, excess, out=freedom, where=excess > 0)
    reach = np.sqrt(count / (count - 1)) * student.ppf(
        (1 + level) / 2, np.clip(freedom, 2, count - 1)
    )
    below = (drawn < value).mean(axis=0) + (drawn == value).mean(axis=0) / 2
    edge = 0.5 / len(drawn)
    bias = norm.ppf(np.clip(below, edge, 1 - edge))
    skew = (gap**3).sum(axis=0)
    acceleration = np.divide(skew, 6 * spread**1.5, out=np.zeros_like(spread), where=spread > 0)
    ordered = np.sort(drawn, axis=0)
    ends = []
    for z in (bias - reach, bias + reach):
        ends.append(_quantile(ordered, norm.cdf(bias + z / np.maximum(1 - acceleration * z, 0.1))))
    return np.minimum(ends[0], value), np.maximum(
        ends[1], value + reach * drawn.std(axis=0, ddof=1)
    )


def _quantile(ordered: Array, share: Array) -> Array:
    """Return a quantile of each column, each at a share of its own."""
    place = np.asarray(share) * (len(ordered) - 1)
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, len(ordered) - 1)
    at = [np.take_along_axis(ordered, k[None], axis=0)[0] for k in (low, high)]
    return np.asarray(at[0] + (place - low) * (at[1] - at[0]))


class ErrorRates:
    """Error rates at many thresholds, for any weights of the groups.

    Args:
        trials: Scored trials.
        most: Thresholds that are kept of either kind of trial, where there are more scores.

    Attributes:
        thresholds: (T,) ascending, each halfway between two scores. The lowest accepts every trial,
            the highest none. With more than some thousand distinct scores they are thinned, so that
            small rates of either kind are met to a hundredth of themselves.
    """

    def __init__(self, trials: TrialScores, *, most: int = _MOST_CUTS) -> None:
        """Count the trials of every pair of groups between thresholds."""
        self.trials = trials
        self.thresholds = _cuts(trials.targets, trials.impostors, most)
        same = trials.same
        self._own, self._other = (_Counts(trials, kind, self.thresholds) for kind in (same, ~same))

    @property
    def pairs(self) -> int:
        """Number of pairs of groups that have trials."""
        return len(self._other.one)

    @property
    def own_groups(self) -> int:
        """Number of groups that have trials within them."""
        return len(self._own.one)

    @cached_property
    def whole(self) -> tuple[Array, Array]:
        """False-acceptance and false-rejection rates of all trials, (T,) each."""
        accepted, rejected = self(np.ones((1, len(self.trials.groups))))
        return accepted[0], rejected[0]

    def __call__(self, weights: Array) -> tuple[Array, Array]:
        """Return false-acceptance and false-rejection rates, (R, T) each, of weights (R, G)."""
        return self._other.shares(weights), self._own.shares(weights, rejected=True)

    def place(self, threshold: float) -> int:
        """Return the number of the threshold that decides like this one, or is next above it."""
        return min(int(np.searchsorted(self.thresholds, threshold)), len(self.thresholds) - 1)


class _Counts:
    """Trials of one kind by pair of groups, and between which thresholds they lie."""

    def __init__(self, trials: TrialScores, kind: Flags, thresholds: Array) -> None:
        scores, groups = trials.scores[kind], len(trials.groups)
        first, second = trials.first[kind], trials.second[kind]
        keys = np.minimum(first, second) * groups + np.maximum(first, second)
        cells, cell = np.unique(keys, return_inverse=True)
        self.one, self.other = cells // groups, cells % groups
        passed = np.searchsorted(thresholds, scores, side="right")  # thresholds at or below it
        shape = (len(thresholds) + 1, len(cells))
        ones = np.ones(len(scores))
        self._counts = csr_array(coo_array((ones, (passed, cell)), shape=shape))

    def shares(self, weights: Array, *, rejected: bool = False) -> Array:
        """Return the share of trials that each threshold accepts, or rejects, (R, T)."""
        step = max(1, _MOST_VALUES // max(len(self.one), self._counts.shape[0]))
        starts = range(0, len(weights), step)
        parts = [self._shares(weights[k : k + step], rejected=rejected) for k in starts]
        return np.concatenate(parts)

    def _shares(self, weights: Array, *, rejected: bool) -> Array:
        own = self.one == self.other
        times = np.where(own, weights[:, self.one], weights[:, self.one] * weights[:, self.other])
        above = np.cumsum((self._counts @ times.T)[::-1], axis=0)[::-1]
        # not 1 minus the other: rates that are equal must be equal numbers
        counted = above[0] - above[1:] if rejected else above[1:]
        return np.asarray((counted / above[0]).T)


def _cuts(own: Array, other: Array, most: int) -> Array:
    distinct = np.unique(np.r_[own, other])
    chosen = distinct
    if len(distinct) > 2 * most:
        falling, rising = np.sort(other)[::-1], np.sort(own)
        picked = [s[_ranks(len(s), most) - 1] for s in (falling, rising)]
        chosen = np.unique(np.r_[distinct[0], *picked, distinct[-1]])
    below = distinct[np.maximum(np.searchsorted(distinct, chosen) - 1, 0)]
    gap = distinct[-1] - distinct[-2] if len(distinct) > 1 else 1.0
    return np.asarray(np.r_[(chosen + below) / 2, distinct[-1] + gap / 2])


def _ranks(count: int, most: int) -> Places:
    """Return ranks from 1 on, all of the first ones, and then further and further apart."""
    return np.asarray(np.unique(np.geomspace(1, count, min(count, most)).astype(np.intp)))


def crossing(accepted: Array, rejected: Array) -> tuple[Array, Places]:
    """Return the equal error rate, interpolated where the rates (R, T) cross, and where, (R,)."""
    place = np.argmax(rejected >= accepted, axis=1)
    before, rows = np.maximum(place - 1, 0), np.arange(len(place))
    gap_before = accepted[rows, before] - rejected[rows, before]
    gap_after = rejected[rows, place] - accepted[rows, place]
    total = gap_before + gap_after
    share = np.divide(gap_before, total, out=np.zeros_like(total), where=total > 0)
    low, high = accepted[rows, before], accepted[rows, place]
    return np.asarray(low + share * (high - low)), place


def rate_interval(value: float, low: float, high: float, *, units: int) -> Interval:
    """Return the interval of a rate; where nothing or everything failed, by the binomial law.

    Args:
        value: Rate of all trials.
        low: Lower end by the bootstrap.
        high: Upper end by the bootstrap.
        units: Number of units that count as independent.
    """
    low, high = max(low, 0.0), min(high, 1.0)
    bound = 1 - ((1 - LEVEL) / 2) ** (1 / units)
    if value == 0:
        return Interval(0.0, 0.0, max(high, bound))
    if value == 1:
        return Interval(1.0, min(low, 1 - bound), 1.0)
    return Interval(value, low, high)
