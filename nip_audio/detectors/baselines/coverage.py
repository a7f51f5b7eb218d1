"""Neuron coverage: the share of neurons that an item activates, or drives out of their range."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.detectors.baselines._baseline import LayerBaseline, look_inside
from nip_audio.errors import InputError

__all__ = ["BoundaryCoverage", "NeuronCoverage", "coverage"]

Array = NDArray[np.float64]


def coverage(outputs: Array, threshold: float) -> float:
    """Return the share of a layer's neurons above a threshold, scaled to [0, 1] (DeepXplore).

    Args:
        outputs: (N,) neuron outputs of one item; if all are equal, none is above the threshold.
        threshold: Threshold of the scaled outputs, in [0, 1).

    Example:
        >>> coverage(np.array([-1.0, 0.0, 2.0, 3.0]), 0.5)
        0.5
    """
    low, high = outputs.min(), outputs.max()
    if high == low:
        return 0.0
    return float(((outputs - low) / (high - low) > threshold).mean())


class NeuronCoverage(LayerBaseline):
    """Share of activated neurons, by layer and threshold (Pei et al., SOSP 2017).

    DeepXplore measures test sets with it; as a detector it is the simple alternative to a *change*
    of the same neurons. The paper publishes no score for a single item: the suspicion is the mean
    of the row, and a distance fitted to the rows is two-sided.

    Args:
        layers: Names of the tapped layers.
        thresholds: Thresholds of the scaled outputs, in [0, 1).

    Raises:
        InputError: If a setting is out of range.
    """

    source = "Pei et al. (DeepXplore), SOSP 2017: neuron coverage"

    def __init__(
        self, layers: Sequence[str], *, thresholds: Sequence[float] = (0.25, 0.5, 0.75)
    ) -> None:
        if not thresholds or not all(0 <= t < 1 for t in thresholds):
            raise InputError(f"thresholds are {thresholds}, expected at least one in [0, 1)")
        self.name = "neuron coverage"
        super().__init__(layers)
        self.thresholds = tuple(thresholds)

    def settings(self) -> dict[str, Any]:
        """Return the layers and thresholds."""
        return super().settings() | {"thresholds": list(self.thresholds)}

    def _measure(self, model: InstrumentedModel, item: Batch, generator: torch.Generator) -> Array:
        inside, _ = look_inside(model, item, self.layers)
        return np.array([coverage(outputs, t) for outputs in inside for t in self.thresholds])


class BoundaryCoverage(LayerBaseline):
    """Share of neurons above and below the range of clean items (Ma et al., ASE 2018).

    This is DeepGauge's neuron boundary coverage for a test set of one item. A row has two entries
    per layer: the share above the range, and the share below it. The paper publishes no score for a
    single item: the suspicion is the mean of the row.

    Args:
        layers: Names of the tapped layers.

    Attributes:
        ranges_: Least and largest output of each neuron on clean items, (2, N) per layer.
    """

    source = "Ma et al. (DeepGauge), ASE 2018: neuron boundary coverage"

    ranges_: tuple[Array, ...]

    def __init__(self, layers: Sequence[str]) -> None:
        self.name = "neuron boundary coverage"
        super().__init__(layers)

    def _learn(
        self, model: InstrumentedModel, clean: Sequence[Batch], generator: torch.Generator
    ) -> None:
        self._require_items(len(clean), 2)
        stacks, _ = self._looks(model, clean)
        self.ranges_ = tuple(np.stack([s.min(axis=0), s.max(axis=0)]) for s in stacks)

    def _measure(self, model: InstrumentedModel, item: Batch, generator: torch.Generator) -> Array:
        self._require_fitted("ranges_")
        inside, _ = look_inside(model, item, self.layers)
        pairs = zip(inside, self.ranges_, strict=True)
        return np.array([s for o, r in pairs for s in ((o > r[1]).mean(), (o < r[0]).mean())])
