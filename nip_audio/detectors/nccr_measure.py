"""The measure of NCCR detectors: change rates of neurons and of the decision under noise.

NCCR is neuron coverage change rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from nip_audio.core.adapter import Batch
from nip_audio.core.decision import LOGIT_CHANGES, evidence_vector
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.nccr import NccrConfig, measure_nccr

__all__ = ["NccrMeasure", "signed_entries"]

Array = NDArray[np.float64]


def signed_entries(config: NccrConfig, *, head: bool) -> int:
    """Return how many of the last entries of an evidence vector are signed changes, not rates."""
    return len(config.noises) * len(LOGIT_CHANGES) if head else 0


@dataclass(frozen=True)
class NccrMeasure:
    """NCCR evidence of one item, and its length.

    Rows are the input of ``LogRates``: change rates, signed changes of the decision if the model
    has a head, and the number of positions.

    Attributes:
        config: Noises, taps and draws of the measurement.
        name: Name shown in tables.
        source: Paper, with the equation or section.
    """

    config: NccrConfig
    name: str = "NCCR"
    source: str = "NCCR, Sec. 3.2 and 5; changes of the decision are ours"

    @property
    def passes(self) -> float:
        """One pass for the item and one per draw; with a tolerance, this is the maximum."""
        return 1 + len(self.config.noises) * self.config.draws

    def settings(self) -> dict[str, Any]:
        """Return all settings that the numbers depend on."""
        return {"name": "nccr", "config": self.config.to_json()}

    def fit(
        self, model: InstrumentedModel, clean: Sequence[Batch], *, generator: torch.Generator
    ) -> Self:
        """Return the measure unchanged: it learns nothing."""
        return self

    def measure(
        self, model: InstrumentedModel, item: Batch, *, generator: torch.Generator
    ) -> Array:
        """Measure one raw item: (F + 1,) numbers, of which the last is the length."""
        result = measure_nccr(model, item, self.config, generator=generator)
        with torch.no_grad():
            vector = evidence_vector(model, result).double().cpu().numpy()
        return np.append(vector, float(item.x.shape[-1]))

    def suspicion(self, rows: Array) -> Array:
        """Return the scalar of NCCR, Sec. 4: the mean change rate over all noises and layers."""
        rates = rows[:, : len(self.config.names)]
        return np.asarray(rates.mean(axis=1))
