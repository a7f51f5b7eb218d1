"""The clean-only detector with a gradient: for attackers who know it, and for those who test it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.nccr import NccrConfig, nccr_vector
from nip_audio.detectors.clean import CleanDistance
from nip_audio.detectors.rates import LogRates

__all__ = ["NccrDistance"]


class NccrDistance(nn.Module):
    """Distance of the NCCR vectors of items from clean ones, in the autograd graph.

    The same number as ``CleanDistance.distance(LogRates.transform(...))`` for the same noise; every
    call draws anew, so that an attacker who averages over calls does EOT.

    Args:
        model: In evaluation mode.
        config: What is measured.
        rates: Fitted.
        detector: Fitted.
        unit_s: Seconds a position of raw input; the length that ``rates`` was fitted to is seconds.
        generator: Source of the noise. The detector's own draws are unknown to an attacker, who
            must have another one.
    """

    def __init__(
        self,
        model: InstrumentedModel,
        config: NccrConfig,
        rates: LogRates,
        detector: CleanDistance,
        *,
        unit_s: float,
        generator: torch.Generator,
    ) -> None:
        """See the class."""
        super().__init__()
        self.model = model
        self.config = config
        self.rates = rates
        self.fitted = {**rates.to_tensors(), **detector.to_tensors()}
        self.unit_s = unit_s
        self.generator = generator

    def forward(self, batch: Batch) -> Tensor:
        """Measure raw items: (B,) float64 distances ≥ 0."""
        return torch.stack([self._distance(batch.item(i)) for i in range(len(batch))])

    def _distance(self, item: Batch) -> Tensor:
        vector = nccr_vector(self.model, item, self.config, generator=self.generator).double()
        rows = self.rates.correct(vector[None], item.x.shape[-1] * self.unit_s)
        scaled = (rows[0] - self.fitted["center"]) / self.fitted["scale"]
        squared: Tensor = scaled @ self.fitted["precision"] @ scaled
        return squared.clamp_min(1e-12).sqrt()
