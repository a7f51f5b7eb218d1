"""Neuron coverage: which neurons an item switches on, or drives beyond what clean items do."""

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
    """Share of a layer's neurons above a threshold, once scaled to [0, 1] (DeepXplore).

    Args:
        outputs: (N,) of one item; where all are equal, none is above.
        threshold: In [0, 1).

    Example:
        >>> coverage(np.array([-1.0, 0.0, 2.0, 3.0]), 0.5)
        0.5
    """
    low, high = outputs.min(), outputs.max()
    if high == low:
        return 0.0
    return float(((outputs - low) / (high - low) > threshold).mean())


class NeuronCoverage(LayerBaseline):
    """Share of neurons switched on, by layer and threshold (Pei et al., SOSP 2017).

    DeepXplore measures test sets with it; as a detector it is the plain alternative to a *change*
    of the same neurons. The paper publishes no score of one item: the suspicion is the mean of the
    row, and whoever fits a distance to the rows uses it on both sides.

    Args:
        layers: Tapped layers.
        thresholds: Of scaled outputs, in [0, 1).

    Raises:
        InputError: If a setting makes no sense.
    """

    source = "Pei et al. (DeepXplore), SOSP 2017: neuron coverage"

    def __init__(
        self, layers: Sequence[str], *, thresholds: Sequence[float] = (0.25, 0.5, 0.75)
    ) -> None:
        """See the class."""
        if not thresholds or not all(0 <= t < 1 for t in thresholds):
            raise InputError(f"thresholds are {thresholds}, expected at least one in [0, 1)")
        self.name = "neuron coverage"
        super().__init__(layers)
        self.thresholds = tuple(thresholds)

    def settings(self) -> dict[str, Any]:
        """Return layers and thresholds."""
        return super().settings() | {"thresholds": list(self.thresholds)}

    def _measure(self, model: InstrumentedModel, item: Batch, generator: torch.Generator) -> Array:
        inside, _ = look_inside(model, item, self.layers)
        return np.array([coverage(outputs, t) for outputs in inside for t in self.thresholds])


class BoundaryCoverage(LayerBaseline):
    """Share of neurons beyond the range of clean items, above and below (Ma et al., ASE 2018).

    DeepGauge's neuron boundary coverage of a test set of one item. A row has two entries a layer:
    the share above, and the share below. The paper publishes no score of one item: the suspicion is
    the mean.

    Args:
        layers: Tapped layers.

    Attributes:
        ranges_: (2, N) least and largest output of each layer's neurons.
    """

    source = "Ma et al. (DeepGauge), ASE 2018: neuron boundary coverage"

    ranges_: tuple[Array, ...]

    def __init__(self, layers: Sequence[str]) -> None:
        """See the class."""
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
