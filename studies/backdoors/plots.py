"""Plot the neuron coverage change rates (NCCR) of clean and poisoned clips (NCCR, Fig. 4 and 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from nip_audio.errors import InputError

__all__ = ["plot_rates"]

_COLOURS = {"clean": "tab:blue", "poisoned": "tab:red"}
_NOISES = ("small", "destroying")


def plot_rates(cases: Sequence[Mapping[str, Any]], path: Path, scales: Mapping[str, float]) -> None:
    """Plot the scalar NCCR of the training clips, poisoned beside clean, one panel per noise.

    Boxes are quartiles, whiskers 5 and 95 %.

    Args:
        cases: Cases of the results, each with a trigger and a seed.
        path: PNG or SVG file to write.
        scales: Standard deviations of the ``small`` and the ``destroying`` noise.

    Raises:
        InputError: If there is no poisoned case.
    """
    poisoned = [case for case in cases if "small, poisoned" in case["train"]["rates"]]
    if not poisoned:
        raise InputError("the results have no poisoned case; measure one first")
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    axes = figure.subplots(1, len(_NOISES))
    for axis, noise in zip(axes, _NOISES, strict=True):
        for shift, (kind, colour) in enumerate(_COLOURS.items()):
            boxes = [_box(case["train"]["rates"][f"{noise}, {kind}"]) for case in poisoned]
            places = [place + 0.36 * shift for place in range(len(boxes))]
            drawn = axis.bxp(
                boxes, positions=places, widths=0.3, showfliers=False, patch_artist=True
            )
            for box in drawn["boxes"]:
                box.set(facecolor=colour, alpha=0.5)
            for line in drawn["medians"]:
                line.set(color="black")
            axis.plot([], [], color=colour, lw=6, alpha=0.5, label=kind)
        axis.set_xticks(
            [place + 0.18 for place in range(len(poisoned))],
            [f"{case['trigger']}\nseed {case['seed']}" for case in poisoned],
            fontsize=6,
            rotation=45,
        )
        axis.set_title(f"{noise} noise, σ = {scales[noise]:g} of [0, 1]", fontsize=9)
        axis.set_ylim(bottom=0)
        axis.tick_params(axis="y", labelsize=7)
        axis.grid(axis="y", alpha=0.3)
    axes[0].set_ylabel("NCCR, pooled layer", fontsize=8)
    axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=130)


def _box(marks: Sequence[float]) -> dict[str, float]:
    """Return matplotlib's description of a box for quantiles 5, 25, 50, 75 and 95 %."""
    names = ("whislo", "q1", "med", "q3", "whishi")
    return dict(zip(names, marks, strict=True))
