"""Local intrinsic dimensionality: how fast the number of neighbours grows with the distance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.detectors.baselines._baseline import LayerBaseline, look_inside, require_at_least
from nip_audio.errors import CalibrationError

__all__ = ["IntrinsicDimension", "intrinsic_dimension"]

Array = NDArray[np.float64]

_MOST = 1000.0  # the dimension would be infinite if all neighbours were equally far


def intrinsic_dimension(distances: Array, neighbours: int) -> float:
    """Estimate by maximum likelihood: −(mean of log r_i / r_k)⁻¹ over the k nearest (Eq. 4).

    Args:
        distances: (n,) distances to reference points. A distance of 0 is the point itself, and is
            ignored.
        neighbours: Number k of neighbours, at most all.

    Raises:
        CalibrationError: If fewer than two distances are positive.

    Example:
        >>> round(intrinsic_dimension(np.array([1.0, 2.0, 4.0, 0.0, 9.0]), 3), 6)
        1.442695
    """
    near = np.sort(distances[distances > 0])[:neighbours]
    if len(near) < 2:
        raise CalibrationError(
            f"{len(near)} clean items differ from this one, expected at least two; fit to items "
            "that are not all equal"
        )
    slope = -float(np.log(near / near[-1]).mean())
    return min(1 / max(slope, 1e-12), _MOST)


class IntrinsicDimension(LayerBaseline):
    """Local intrinsic dimensionality at each layer, among clean items (Ma et al., ICLR 2018).

    The neighbourhood of an adversarial item has more dimensions. A row has one estimate per layer.

    The paper decides by a logistic regression trained on attacked items, and publishes no score
    that works without them: here the suspicion is the mean of the row. Neighbours are searched
    among one fixed minibatch of clean items, drawn in ``fit``; the paper uses the rest of the
    item's own minibatch.

    Args:
        layers: Names of the tapped layers.
        neighbours: Number k of neighbours.
        batch: Largest number of clean items in the minibatch.

    Attributes:
        references_: Neuron outputs of the clean items, (n, N) per layer.

    Raises:
        InputError: If a setting is out of range.
    """

    source = "Ma et al., ICLR 2018, Eq. 4 and Algorithm 1"

    references_: tuple[Array, ...]

    def __init__(self, layers: Sequence[str], *, neighbours: int = 20, batch: int = 100) -> None:
        require_at_least("neighbours", neighbours, 2)
        require_at_least("batch", batch, neighbours + 1)
        self.name = "local intrinsic dimensionality"
        super().__init__(layers)
        self.neighbours = neighbours
        self.batch = batch

    def settings(self) -> dict[str, Any]:
        """Return the layers, the number of neighbours and the size of the minibatch."""
        return super().settings() | {"neighbours": self.neighbours, "batch": self.batch}

    def _learn(
        self, model: InstrumentedModel, clean: Sequence[Batch], generator: torch.Generator
    ) -> None:
        self._require_items(len(clean), self.neighbours + 1)
        order = torch.randperm(len(clean), generator=generator)[: self.batch].tolist()
        self.references_, _ = self._looks(model, (clean[i] for i in order))

    def _measure(self, model: InstrumentedModel, item: Batch, generator: torch.Generator) -> Array:
        self._require_fitted("references_")
        inside, _ = look_inside(model, item, self.layers)
        pairs = zip(self.references_, inside, strict=True)
        distances = [np.linalg.norm(references - outputs, axis=1) for references, outputs in pairs]
        return np.array([intrinsic_dimension(d, self.neighbours) for d in distances])
