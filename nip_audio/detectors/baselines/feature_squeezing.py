"""Feature squeezing: compare the answer with those for coarser versions of the item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.detectors.base import Transform
from nip_audio.detectors.baselines._baseline import Baseline, logits_of
from nip_audio.errors import InputError

__all__ = ["FeatureSqueezing"]

Array = NDArray[np.float64]


class FeatureSqueezing(Baseline):
    """L1 distance between the softmax of x and of squeezed x, for each squeezer (Xu et al. 2018).

    A row has one entry a squeezer, in [0, 2]; the suspicion is the largest (Sec. V-A, the joint
    detection).

    Args:
        squeezers: What makes items coarser.

    Raises:
        InputError: If there is no squeezer.
    """

    source = "Xu, Evans & Qi, NDSS 2018, Eq. 6 and Sec. V"

    def __init__(self, squeezers: Sequence[Transform]) -> None:
        """See the class."""
        if not squeezers:
            raise InputError("got no squeezers, expected at least one")
        self.name = "feature squeezing"
        self.squeezers = tuple(squeezers)

    @property
    def passes(self) -> float:
        """One for the item, and one a squeezer."""
        return 1 + len(self.squeezers)

    def settings(self) -> dict[str, Any]:
        """Return the squeezers."""
        return {"name": self.name, "squeezers": [s.settings() for s in self.squeezers]}

    def suspicion(self, rows: Array) -> Array:
        """Return the largest distance."""
        return np.asarray(rows.max(axis=1))

    def _measure(self, model: InstrumentedModel, item: Batch, generator: torch.Generator) -> Array:
        sure = logits_of(model, item).softmax(dim=0)
        squeezed = [s.purify(item, generator=generator) for s in self.squeezers]
        distances = [(logits_of(model, x).softmax(dim=0) - sure).abs().sum() for x in squeezed]
        return np.array([float(d) for d in distances])
