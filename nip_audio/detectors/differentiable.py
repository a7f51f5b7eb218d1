"""Differentiable NCCR detectors, for attackers who know the detector and for tests.

NCCR is neuron coverage change rate, the change of neuron outputs under noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from nip_audio.core.adapter import Batch
from nip_audio.core.decision import evidence_vector
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.nccr import NccrConfig, nccr_with_graph
from nip_audio.detectors.fitted import FittedRates

__all__ = ["GraphDetector", "KnownDetector", "NccrDistance"]


class GraphDetector(Protocol):
    """A fitted detector of tensors: CleanDensity, CleanDistance, CleanSum, AttackPerceptron."""

    def distance_of(self, rows: Tensor) -> Tensor:
        """Compute the distance of (n, F) float64 rows in the autograd graph: (n,)."""
        ...

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the fitted arrays."""
        ...


@dataclass(frozen=True)
class KnownDetector:
    """A fitted detector of which an attacker knows every part.

    Attributes:
        rates: Fitted correction of change rates for length, in positions.
        detector: Fitted detector.
        threshold: Distance above which the detector flags an item.
    """

    rates: FittedRates
    detector: GraphDetector
    threshold: float = 0.0

    def excess_of(self, rows: Tensor, length: float) -> Tensor:
        """Compute distance minus threshold of (n, F) float64 evidence of one length: (n,)."""
        return self.detector.distance_of(self.rates.correct(rows, length)) - self.threshold


class NccrDistance(nn.Module):
    """Mean distance over the threshold of one or more fitted detectors, in the autograd graph.

    For a single detector with threshold 0 the value equals the detector's distance under the same
    noise. Every call draws new noise, so that averaging over calls is expectation over
    transformation (EOT).

    Args:
        model: Model in evaluation mode.
        config: Noises, taps and draws of the measurement.
        known: One or more fitted detectors of the same evidence.
        generator: Source of the noise. It must differ from the detector's own generator, whose
            draws an attacker cannot know.
        beside: Function that computes one further entry of the evidence, the last, from a raw batch
            of one item: (1,). None adds no entry.
    """

    def __init__(
        self,
        model: InstrumentedModel,
        config: NccrConfig,
        *known: KnownDetector,
        generator: torch.Generator,
        beside: Callable[[Batch], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.beside = beside
        self.known = known
        self.generator = generator

    def forward(self, batch: Batch) -> Tensor:
        """Compute the mean distance over the threshold of raw items: (B,) float64."""
        return torch.stack([self._distance(batch.item(i)) for i in range(len(batch))])

    def _distance(self, item: Batch) -> Tensor:
        result = nccr_with_graph(self.model, item, self.config, generator=self.generator)
        vector = evidence_vector(self.model, result).double()
        if self.beside is not None:
            vector = torch.cat([vector, self.beside(item)])
        length = float(item.x.shape[-1])
        return torch.stack([one.excess_of(vector[None], length)[0] for one in self.known]).mean()
