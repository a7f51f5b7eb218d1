"""Fitted NCCR detectors with a gradient: for attackers who know them, and for tests."""

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
from nip_audio.detectors.rates import LogRates

__all__ = ["GraphDetector", "KnownDetector", "NccrDistance"]


class GraphDetector(Protocol):
    """A fitted detector that takes tensors: CleanDensity, CleanDistance, AttackPerceptron."""

    def distance_of(self, rows: Tensor) -> Tensor:
        """How far (n, F) float64 rows are from clean ones, in the autograd graph: (n,)."""
        ...

    def to_tensors(self) -> dict[str, Tensor]:
        """What it is made of."""
        ...


@dataclass(frozen=True)
class KnownDetector:
    """A fitted detector, as somebody knows it who has all of it.

    Attributes:
        rates: Fitted, with the item's length in positions.
        detector: Fitted.
        threshold: Distances are counted from here.
    """

    rates: LogRates
    detector: GraphDetector
    threshold: float = 0.0

    def excess_of(self, rows: Tensor, length: float) -> Tensor:
        """Distance over the threshold of (n, F) float64 evidence of one length: (n,)."""
        return self.detector.distance_of(self.rates.correct(rows, length)) - self.threshold


class NccrDistance(nn.Module):
    """What fitted detectors say of items, on average, in the autograd graph.

    Of one with threshold 0 it is the same number as the detector's own for the same noise; every
    call draws anew, so that an attacker who averages over calls does EOT.

    Args:
        model: In evaluation mode.
        config: What is measured.
        known: One or more detectors of the same evidence.
        beside: A further entry of the evidence, the last: raw batch of one item → (1,).
        generator: Source of the noise. The detector's own draws are unknown to an attacker, who
            must have another one.
    """

    def __init__(
        self,
        model: InstrumentedModel,
        config: NccrConfig,
        *known: KnownDetector,
        generator: torch.Generator,
        beside: Callable[[Batch], Tensor] | None = None,
    ) -> None:
        """See the class."""
        super().__init__()
        self.model = model
        self.config = config
        self.beside = beside
        self.known = known
        self.generator = generator

    def forward(self, batch: Batch) -> Tensor:
        """Measure raw items: (B,) float64, high is suspicious."""
        return torch.stack([self._distance(batch.item(i)) for i in range(len(batch))])

    def _distance(self, item: Batch) -> Tensor:
        result = nccr_with_graph(self.model, item, self.config, generator=self.generator)
        vector = evidence_vector(self.model, result).double()
        if self.beside is not None:
            vector = torch.cat([vector, self.beside(item)])
        length = float(item.x.shape[-1])
        return torch.stack([one.excess_of(vector[None], length)[0] for one in self.known]).mean()
