"""Plot what a threshold was set on: histograms of scores, and the errors that are traded."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import norm

from nip_audio.models.operating_point import OperatingPoint
from nip_audio.models.trial_scores import TrialScores

__all__ = ["plot_threshold"]

Array = NDArray[np.float64]

_TICKS = (0.0001, 0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95)
_EDGE = 1e-5


def plot_threshold(point: OperatingPoint, trials: TrialScores, *, score: str) -> bytes:
    """Draw histograms of the scores, and the detection error trade-off (DET), as a PNG.

    Args:
        point: Threshold and error rates.
        trials: Scored trials.
        score: What a score is, for the axis.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_scores(left, point, trials, score)
    _draw_errors(right, point)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _draw_scores(axis: Axes, point: OperatingPoint, trials: TrialScores, score: str) -> None:
    edges = np.histogram_bin_edges(trials.scores, bins=60)
    kinds = (
        ("two speakers", trials.impostors, "tab:blue"),
        ("one speaker", trials.targets, "tab:orange"),
    )
    for name, values, colour in kinds:
        axis.hist(
            values,
            bins=edges.tolist(),
            weights=np.full(len(values), 100 / len(values)),
            alpha=0.6,
            color=colour,
            label=f"{name}, {len(values):,} trials",
        )
    found = point.threshold
    axis.axvspan(found.low, found.high, color="black", alpha=0.12, lw=0)
    axis.axvline(found.value, color="black", lw=1.2, label=f"threshold {found.value:.3f}")
    axis.set_xlabel(score)
    axis.set_ylabel("share of trials of this kind, percent")
    axis.legend(fontsize=8)


def _draw_errors(axis: Axes, point: OperatingPoint) -> None:
    curve = point.curve
    far, frr = (_warped(rates) for rates in (curve.far, curve.frr))
    blue = "tab:blue"
    axis.fill_between(far[0], frr[1], frr[2], alpha=0.2, lw=0, color=blue, label="95 %, FRR")
    axis.fill_betweenx(
        frr[0], far[1], far[2], alpha=0.2, lw=0, color="tab:green", label="95 %, FAR"
    )
    axis.plot(far[0], frr[0], color=blue, lw=1.4)
    axis.plot(
        _warped(np.array(point.far.value)),
        _warped(np.array(point.frr.value)),
        "o",
        color="black",
        label=f"threshold {point.threshold.value:.3f}: FAR {point.far.value:.2%}, "
        f"FRR {point.frr.value:.2%}",
    )
    ticks = norm.ppf(_TICKS)
    names = [f"{100 * tick:g}" for tick in _TICKS]
    axis.set_xticks(ticks, names)
    axis.set_yticks(ticks, names)
    limits = (norm.ppf(2e-5), norm.ppf(0.97))
    axis.set_xlim(*limits)
    axis.set_ylim(*limits)
    axis.set_xlabel("false acceptances (FAR), percent")
    axis.set_ylabel("false rejections (FRR), percent")
    axis.set_title(f"EER {point.eer.value:.1%}, {point.groups} speakers", fontsize=10)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def _warped(rates: Array) -> Array:
    """Return rates on the scale on which Gaussian scores give a straight line."""
    return np.asarray(norm.ppf(np.clip(rates, _EDGE, 1 - _EDGE)))
