"""Turn scores of trials into log-likelihood ratios (LLR), and measure how good the ratios are.

The ratio is of "one group" to "two groups", as a natural logarithm. It is ``slope · score +
offset``, fitted by logistic regression in which both kinds of trial weigh as a prior says, and from
which that prior is taken out again (Brümmer and du Preez 2006). Cllr is the cost of such ratios in
bits: 0 is perfect, 1 is a system that says nothing. Its minimum over all monotonic ratios, found by
isotonic regression, is what the order of the scores allows; the rest is lost to calibration.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from nip_audio.core.finite import require_finite
from nip_audio.errors import InputError
from nip_audio.models.trial_scores import TrialScores

__all__ = ["LogRatios", "cllr", "compare_calibrations", "fit_log_ratios", "min_cllr", "trial_costs"]

Array = NDArray[np.float64]

_FOLDS = 5
_GRID, _BINS = 200, 400  # of Venn–ABERS: scores that are computed, and quantiles of either kind


@dataclass(frozen=True)
class LogRatios:
    """Calibration of scores: natural log-likelihood ratio = slope · score + offset.

    Attributes:
        slope: Positive, so that the order of scores is kept.
        offset: Ratio at a score of zero.
        prior: Prior of a trial within a group around which it was fitted best.
    """

    slope: float
    offset: float
    prior: float = 0.5

    def __post_init__(self) -> None:
        """Refuse numbers by which nothing can be decided.

        Raises:
            InputError: If a number is not finite, the slope not positive or the prior no prior.
        """
        require_finite(slope=self.slope, offset=self.offset)
        if self.slope <= 0:
            raise InputError(
                f"trials within a group score no higher than others (slope {self.slope:.3g}), "
                "expected a positive slope; check the labels of the trials and the model"
            )
        require_prior(self.prior)

    def of(self, scores: Array) -> Array:
        """Return the ratios of scores."""
        return np.asarray(self.slope * scores + self.offset)

    def probability(self, score: float, *, prior: float) -> float:
        """Return the probability that both sides are of one group, given a prior in (0, 1).

        Example:
            >>> LogRatios(slope=10.0, offset=-5.0).probability(0.5, prior=0.01)
            0.01
        """
        require_prior(prior)
        odds = self.slope * score + self.offset + math.log(prior / (1 - prior))
        return float(round(1 / (1 + math.exp(-odds)), 12)) if odds > -700 else 0.0


def require_prior(prior: float) -> None:
    """Refuse what is no prior.

    Raises:
        InputError: If it is outside (0, 1).
    """
    if not 0 < prior < 1:
        raise InputError(
            f"the prior is {prior}, expected a number in (0, 1); pass, e.g., 0.01 if one claim "
            "in a hundred is true"
        )


def fit_log_ratios(trials: TrialScores, *, prior: float = 0.5) -> LogRatios:
    """Fit ratios to scored trials by logistic regression.

    The fit is regularised as much as one trial weighs, so that trials without an error do not give
    ratios without a bound.

    Args:
        trials: Scored trials.
        prior: Prior at which both kinds of trial weigh.

    Raises:
        InputError: If trials within a group score no higher than others, or the prior is none.
    """
    from sklearn.linear_model import LogisticRegression

    require_prior(prior)
    centre, size = float(trials.scores.mean()), float(trials.scores.std()) or 1.0
    same = trials.same
    weights = np.where(same, prior / same.sum(), (1 - prior) / (~same).sum()) * len(same)
    fitted = LogisticRegression().fit(
        ((trials.scores - centre) / size)[:, None], same, sample_weight=weights
    )
    slope = float(fitted.coef_[0, 0]) / size
    offset = float(fitted.intercept_[0]) - slope * centre - math.log(prior / (1 - prior))
    return LogRatios(slope, offset, prior)


def trial_costs(ratios: Array, same: NDArray[np.bool_]) -> Array:
    """Return the cost of each trial's ratio in bits; Cllr is the mean of both kinds' means."""
    return np.asarray(np.logaddexp(0, np.where(same, -ratios, ratios)) / math.log(2))


def cllr(ratios: Array, same: NDArray[np.bool_]) -> float:
    """Compute Cllr, the cost of log-likelihood ratios in bits.

    Example:
        >>> cllr(np.array([0.0, 0.0]), np.array([True, False]))
        1.0
    """
    costs = trial_costs(ratios, same)
    return float((costs[same].mean() + costs[~same].mean()) / 2)


def min_cllr(trials: TrialScores) -> float:
    """Compute the lowest Cllr that monotonic ratios of these scores can have."""
    distinct, place = np.unique(trials.scores, return_inverse=True)
    own, other = (
        np.bincount(place[kind], minlength=len(distinct)).astype(float)
        for kind in (trials.same, ~trials.same)
    )
    p = _monotonic(own, other)
    own_bits = own[own > 0] @ np.log2(p[own > 0]) / own.sum()
    other_bits = other[other > 0] @ np.log2(1 - p[other > 0]) / other.sum()
    return float(-(own_bits + other_bits) / 2)


def _monotonic(own: Array, other: Array) -> Array:
    """Return rising probabilities at a prior of one half, of numbers of trials in rising order."""
    weights = own / own.sum() + other / other.sum()
    shares = own / own.sum() / weights
    return np.asarray(isotonic_regression(shares, weights=weights).x)


def _venn_abers(learn: TrialScores, scores: Array) -> Array:
    """Return ratios by inductive Venn–ABERS prediction (Vovk and Petej 2014).

    Each score is added to the learning trials, once under either label; the two isotonic fits give
    an interval of probabilities, which is merged into the one of least regret. Learning trials are
    counted between quantiles of both kinds, and ratios between some scores are interpolated.
    """
    grid = np.unique(np.quantile(scores, np.linspace(0, 1, _GRID)))
    shares = np.linspace(0, 1, _BINS)
    edges = np.unique(
        np.r_[np.quantile(learn.targets, shares), np.quantile(learn.impostors, shares)]
    )
    own, other = (
        np.bincount(np.searchsorted(edges, part), minlength=len(edges)).astype(float)
        for part in (learn.targets, learn.impostors)
    )
    kept = own + other > 0
    edges, own, other = edges[kept], own[kept], other[kept]
    places = np.searchsorted(edges, grid)
    low, high = np.empty(len(grid)), np.empty(len(grid))
    for k, place in enumerate(places):
        for label, found in ((0.0, low), (1.0, high)):
            more = np.insert(own, place, label), np.insert(other, place, 1 - label)
            found[k] = _monotonic(*more)[place]
    p = high / (1 - low + high)
    return np.asarray(np.interp(scores, grid, np.log(p) - np.log1p(-p)))


def compare_calibrations(
    trials: TrialScores, *, prior: float = 0.5, seed: int = 0
) -> dict[str, float] | None:
    """Compare calibrations by the Cllr of trials of groups that they were not fitted to.

    The groups are dealt into five parts, or fewer where there are few; a part is scored by what the
    others taught.

    Args:
        trials: Scored trials.
        prior: Prior of the logistic regression.
        seed: Seed of the deal.

    Returns:
        Cllr of ``logistic`` and ``venn_abers``; None with too few groups to leave some out.
    """
    rng = np.random.default_rng(seed)
    own = rng.permutation(np.unique(trials.first[trials.same]))
    folds = min(_FOLDS, len(own) // 3)
    if folds < 2:
        return None
    others = np.setdiff1d(np.r_[trials.first, trials.second], own)
    part = np.zeros(len(trials.groups), dtype=int)
    for members in (own, rng.permutation(others)):
        part[members] = np.arange(len(members)) % folds
    ratios: dict[str, list[Array]] = {"logistic": [], "venn_abers": []}
    told: list[NDArray[np.bool_]] = []
    for fold in range(folds):
        ends = [part[side] == fold for side in (trials.first, trials.second)]
        held, rest = ends[0] & ends[1], ~(ends[0] | ends[1])
        kinds = [trials.same[held], trials.same[rest]]
        if any(kind.all() or not kind.any() for kind in kinds):
            return None
        learn, test = trials.part(rest), trials.part(held)
        ratios["logistic"].append(fit_log_ratios(learn, prior=prior).of(test.scores))
        ratios["venn_abers"].append(_venn_abers(learn, test.scores))
        told.append(test.same)
    same = np.concatenate(told)
    return {name: cllr(np.concatenate(parts), same) for name, parts in ratios.items()}
