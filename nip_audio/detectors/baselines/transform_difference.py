"""Change the item in a way that harmless items survive, and compare the scores."""

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
    """|Score of x − score of the changed x|, both of the class that the model names for x.

    The score of an embedding model is its cosine or log-likelihood ratio to the named voice, as in
    verification, where Wu et al. (ICASSP 2022) resynthesise with a vocoder. A codec, or any other
    purifier of raw input, serves as well.

    Args:
        name: As tables call it.
        source: Where this is from.
        transform: The change.
    """

    def __init__(self, name: str, source: str, transform: Transform) -> None:
        """See the class."""
        self.name = name
        self.source = source
        self.transform = transform

    @property
    def passes(self) -> float:
        """Two: before and after."""
        return 2

    def settings(self) -> dict[str, Any]:
        """Return what the change is."""
        return {"name": self.name, "transform": self.transform.settings()}

    def suspicion(self, rows: Array) -> Array:
        """Return the difference."""
        return np.asarray(rows[:, 0])

    def _measure(self, model: InstrumentedModel, item: Batch, generator: torch.Generator) -> Array:
        before = model.scores(item)[0].double()
        after = model.scores(self.transform.purify(item, generator=generator))[0].double()
        named = int(before.argmax())
        return np.array([abs(float(after[named] - before[named]))])
