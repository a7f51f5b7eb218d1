"""Plot the results of an evaluation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure

from nip_audio.evaluation.tables import LEVELS

__all__ = ["plot_success"]


def plot_success(results: Mapping[str, Any], stem: Path) -> list[Path]:
    """Plot attack success against ε, one panel per system and level, as PNG and SVG.

    Args:
        results: Results of a run.
        stem: Path of the files without suffix.

    Returns:
        The files written; none if no attack has a bound ε.
    """
    lines: dict[tuple[str, str], dict[str, list[tuple[float, Mapping[str, float]]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for cell in results["cells"]:
        if cell["norm"] == "linf" and cell["protocol"] == "unaware":
            lines[cell["system"], cell["level"]][cell["title"]].append((cell["eps"], cell["asr"]))
    if not lines:
        return []
    titles = list(dict.fromkeys(title for panel in lines.values() for title in panel))
    colours = {title: colormaps["tab20"](i % 20) for i, title in enumerate(titles)}
    systems = list(dict.fromkeys(system for system, _ in lines))
    levels = [level for level in LEVELS if any(level == one for _, one in lines)]
    figure = Figure(figsize=(3.6 * len(systems), 3.2 * len(levels)), layout="constrained")
    axes = figure.subplots(len(levels), len(systems), squeeze=False, sharey=True)
    for row, level in enumerate(levels):
        for column, system in enumerate(systems):
            axis = axes[row][column]
            for title, points in lines[system, level].items():
                points = sorted(points, key=lambda p: p[0])
                strengths = [eps for eps, _ in points]
                values = [100 * share["value"] for _, share in points]
                errors = [
                    [v - 100 * s["low"] for v, (_, s) in zip(values, points, strict=True)],
                    [100 * s["high"] - v for v, (_, s) in zip(values, points, strict=True)],
                ]
                axis.errorbar(
                    strengths,
                    values,
                    yerr=errors,
                    marker="o",
                    ms=3,
                    lw=1,
                    label=title,
                    color=colours[title],
                )
            axis.set_title(f"{system}, {LEVELS[level]}", fontsize=9)
            axis.set_xscale("log")
            axis.set_xlabel("ε", fontsize=8)
            axis.set_ylim(-3, 103)
            axis.tick_params(labelsize=7)
            axis.grid(alpha=0.3)
            if lines[system, level]:
                axis.legend(fontsize=6)
        axes[row][0].set_ylabel("attack success, percent", fontsize=8)
    files = [stem.with_suffix(ending) for ending in (".png", ".svg")]
    for file in files:
        figure.savefig(file, dpi=130)
    return files
