"""Compare the score of an item before and after a transform that hardly affects clean items."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.detectors.base import Transform
from nip_audio.detectors.baselines._baseline import Baseline

__all__ = ["TransformDifference"]

Array = NDArray[np.float64]


class TransformDifference(Baseline):
    """|Score of x − score of the transformed x|, both for the class predicted for x.

    The score of an embedding model is its cosine or log-likelihood ratio to the predicted speaker's
    voice, as in verification, where Wu et al. (ICASSP 2022) resynthesise with a vocoder. A codec or
    any other purifier of raw input works as well.

    Args:
        name: Name shown in tables.
        source: Paper, with the equation or section.
        transform: Transform that is applied to the item.
    """

    def __init__(self, name: str, source: str, transform: Transform) -> None:
        self.name = name
        self.source = source
        self.transform = transform

    @property
    def passes(self) -> float:
        """Two passes, before and after the transform."""
        return 2

    def settings(self) -> dict[str, Any]:
        """Return the settings of the transform."""
        return {"name": self.name, "transform": self.transform.settings()}

    def suspicion(self, rows: Array) -> Array:
        """Return the difference of the scores."""
        return np.asarray(rows[:, 0])

    def _measure(self, model: InstrumentedModel, item: Batch, generator: torch.Generator) -> Array:
        before = model.scores(item)[0].double()
        after = model.scores(self.transform.purify(item, generator=generator))[0].double()
        named = int(before.argmax())
        return np.array([abs(float(after[named] - before[named]))])
