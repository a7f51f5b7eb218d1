"""The measure of NCCR detectors: change rates of neurons and of the decision under noise.

NCCR is neuron coverage change rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from nip_audio.core.adapter import Batch
from nip_audio.core.decision import LOGIT_CHANGES, evidence_vector
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.nccr import NccrConfig, measure_nccr

__all__ = ["CoverageMeasure", "NccrMeasure", "neuron_rows", "signed_entries"]

Array = NDArray[np.float64]


def signed_entries(config: NccrConfig, *, head: bool) -> int:
    """Return how many of the last entries of an evidence vector are signed changes, not rates."""
    return len(config.noises) * len(LOGIT_CHANGES) if head else 0


@dataclass(frozen=True)
class _UnderNoise:
    """What a measure under the noises of NCCR has in common with another: it learns nothing.

    Attributes:
        config: Noises, taps and draws of the measurement.
    """

    config: NccrConfig

    @property
    def passes(self) -> float:
        """One pass for the item and one per draw; with a tolerance, this is the maximum."""
        return 1 + len(self.config.noises) * self.config.draws

    def fit(
        self, model: InstrumentedModel, clean: Sequence[Batch], *, generator: torch.Generator
    ) -> Self:
        """Return the measure unchanged."""
        return self


@dataclass(frozen=True)
class NccrMeasure(_UnderNoise):
    """NCCR of one item, what the noise does to the decision, and the item's length.

    Rows are the input of ``LogRates``: change rates, signed changes of the decision if the model
    has a head, and the number of positions. The paper has the change rates alone: ``neuron_rows``.

    Attributes:
        config: Noises, taps and draws of the measurement.
        name: Name shown in tables.
        source: Paper, with the equation or section.
    """

    name: str = "NCCR and decision"
    source: str = "NCCR, Sec. 3.2 and 5; changes of the decision are ours"
    as_published: ClassVar[bool] = False

    def settings(self) -> dict[str, Any]:
        """Return all settings that the numbers depend on."""
        return {"name": "nccr", "config": self.config.to_json()}

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


def neuron_rows(rows: Array, config: NccrConfig) -> Array:
    """Return the paper's vector (NCCR, Sec. 5) of ``NccrMeasure`` rows: change rates and length."""
    return np.column_stack([rows[:, : len(config.names)], rows[:, -1]])


@dataclass(frozen=True)
class CoverageMeasure(_UnderNoise):
    """Shares of the neurons that noise activates or silences: NCCR by an l0 distance.

    Rows have one share for each noise and layer, averaged over the draws, under the same noise as
    those of ``NccrMeasure``.

    Attributes:
        config: Noises, taps and draws of the measurement.
        name: Name shown in tables.
        source: Paper, with the equation or section.
    """

    name: str = "NCCR, l0"
    source: str = "NCCR, Sec. 1 and 5: difference of neuron coverage"
    as_published: ClassVar[bool] = False

    def settings(self) -> dict[str, Any]:
        """Return all settings that the numbers depend on."""
        return {"name": "nccr-l0", "config": self.config.to_json()}

    def measure(
        self, model: InstrumentedModel, item: Batch, *, generator: torch.Generator
    ) -> Array:
        """Measure one raw item: (noises · layers,) shares."""
        result = measure_nccr(model, item, self.config, generator=generator)
        return result.flips.mean(dim=1).flatten().double().cpu().numpy()

    def suspicion(self, rows: Array) -> Array:
        """Return the scalar: the mean share over all noises and layers."""
        return np.asarray(rows.mean(axis=1))
