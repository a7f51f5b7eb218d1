"""Plot NCCR (neuron coverage change rate) and neuron outputs, as in Fig. 1 to 3 of the paper."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nip_audio.errors import InputError

__all__ = ["plot_activation_maps", "plot_boxes"]

Array = NDArray[np.float64]


def plot_boxes(
    panels: Mapping[str, Mapping[str, Array]], *, ylabel: str = "NCCR", log: bool = False
) -> bytes:
    """Draw box plots side by side (NCCR, Fig. 2 and 3).

    The line is the median, the triangle the mean, and the box the quartiles. Whiskers reach up to
    1.5 times the height of the box; circles are values beyond them.

    Args:
        panels: Values, (items,), by title of the panel and name of the box.
        ylabel: Label of the value axis.
        log: Whether the value axis is logarithmic.

    Returns:
        The plot as PNG bytes.

    Raises:
        InputError: If there is nothing to draw.
    """
    if not panels or not all(panels.values()):
        raise InputError("there is nothing to draw; give at least one panel with one box")
    widest = max(len(boxes) for boxes in panels.values())
    figure = Figure(figsize=(max(3.0, 0.9 * widest) * len(panels), 4.0), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, boxes) in zip(axes, panels.items(), strict=True):
        axis.boxplot(
            list(boxes.values()),
            tick_labels=[_escaped(name) for name in boxes],
            showmeans=True,
            flierprops={"marker": "o", "markersize": 3},
        )
        axis.set_title(title, fontsize=9, parse_math=False)
        axis.tick_params(labelsize=7)
        for label in axis.get_xticklabels():
            label.set(rotation=30, ha="right", parse_math=False)
        axis.grid(alpha=0.3, axis="y")
        if log:
            axis.set_yscale("log")
    axes[0].set_ylabel(ylabel, fontsize=8)
    return _png(figure)


def plot_activation_maps(maps: Mapping[str, Array], classes: Sequence[str], *, layer: str) -> bytes:
    """Draw neuron outputs by class, one panel per condition (NCCR, Fig. 1).

    In all panels, neurons are ordered by their mean in the first panel and divided by their largest
    value there. The paper does neither, so that only a few neurons can be seen in its figure.

    Args:
        maps: Mean outputs of each class's clips, (classes, neurons), by title of the panel; NaN
            for a class without clips.
        classes: Names of the classes, one per row.
        layer: Name of the layer.

    Returns:
        The plot as PNG bytes.

    Raises:
        InputError: If the maps differ in shape, or have no row for each class.
    """
    shapes = {values.shape for values in maps.values()}
    if len(shapes) != 1 or next(iter(shapes))[0] != len(classes):
        raise InputError(f"got maps of {shapes} for {len(classes)} classes, expected one shape")
    first = next(iter(maps.values()))
    order = np.argsort(-np.nanmean(first, axis=0), kind="stable")
    largest = np.nanmax(np.abs(first), axis=0)
    largest = np.where(largest > 0, largest, 1.0)
    height = max(3.0, 0.11 * len(classes) + 1.0)
    figure = Figure(figsize=(4.2 * len(maps) + 0.6, height), layout="constrained")
    axes = figure.subplots(1, len(maps), squeeze=False)[0]
    for axis, (title, values) in zip(axes, maps.items(), strict=True):
        image = axis.imshow(
            (values / largest)[:, order],
            aspect="auto",
            interpolation="nearest",
            vmin=0.0,
            vmax=1.0,
            cmap="gray",
        )
        axis.set_title(title, fontsize=9, parse_math=False)
        axis.set_xlabel(f"neurons of {layer}", fontsize=8, parse_math=False)
        axis.set_yticks(range(len(classes)), [_escaped(name) for name in classes])
        axis.tick_params(labelsize=5)
    axes[0].set_ylabel("speaker", fontsize=8)
    figure.colorbar(image, ax=list(axes), pad=0.01).ax.tick_params(labelsize=7)
    return _png(figure)


def _escaped(name: str) -> str:
    """Escape letters outside ASCII, since no font has all of them."""
    return name.encode("ascii", "backslashreplace").decode()


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
