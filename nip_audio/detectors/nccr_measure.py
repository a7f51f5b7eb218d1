"""The measure that NCCR detectors judge: change rates and changes of the decision under noise."""

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
    """How many of the last entries of an evidence vector are signed changes, not rates."""
    return len(config.noises) * len(LOGIT_CHANGES) if head else 0


@dataclass(frozen=True)
class NccrMeasure:
    """NCCR evidence of one item, and its length.

    Rows are what ``LogRates`` takes: rates, signed changes of the decision if the model has a head,
    and the number of positions.

    Attributes:
        config: Noises, taps and draws.
        name: As tables call it.
    """

    config: NccrConfig
    name: str = "NCCR"
    source: str = "NCCR, Sec. 3.2 and 5; changes of the decision are ours"

    @property
    def passes(self) -> float:
        """The item itself and every draw; with a tolerance, at most."""
        return 1 + len(self.config.noises) * self.config.draws

    def settings(self) -> dict[str, Any]:
        """Return what the numbers depend on."""
        return {"name": "nccr", "config": self.config.to_json()}

    def fit(
        self, model: InstrumentedModel, clean: Sequence[Batch], *, generator: torch.Generator
    ) -> Self:
        """Nothing is learned."""
        return self

    def measure(
        self, model: InstrumentedModel, item: Batch, *, generator: torch.Generator
    ) -> Array:
        """Measure one raw item: (F + 1,)."""
        result = measure_nccr(model, item, self.config, generator=generator)
        with torch.no_grad():
            vector = evidence_vector(model, result).double().cpu().numpy()
        return np.append(vector, float(item.x.shape[-1]))

    def suspicion(self, rows: Array) -> Array:
        """The scalar of Sec. 4 over all noises and layers: the mean rate."""
        rates = rows[:, : len(self.config.names)]
        return np.asarray(rates.mean(axis=1))
