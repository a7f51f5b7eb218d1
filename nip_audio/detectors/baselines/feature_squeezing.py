"""Feature squeezing: compare the prediction for an item with those for coarser versions of it."""

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

    A row has one entry per squeezer, in [0, 2]; the suspicion is the largest entry. A squeezer must
    not change the prediction for clean items; the paper selects squeezers by hand for each model.
    Here ``fit`` keeps those for which the model keeps its prediction on at least ``agreement`` of
    the clean items, or the best one if none does: a harmful squeezer would give the largest
    distance for every item.

    Args:
        squeezers: Transforms that make items coarser.
        agreement: Least share of clean items that must keep their prediction.

    Attributes:
        kept_: Squeezers in use.

    Raises:
        InputError: If there is no squeezer, or ``agreement`` is not in [0, 1].
    """

    source = "Xu, Evans & Qi (feature squeezing), NDSS 2018"

    kept_: tuple[Transform, ...]

    def __init__(self, squeezers: Sequence[Transform], *, agreement: float = 0.8) -> None:
        if not squeezers:
            raise InputError("got no squeezers, expected at least one; pass e.g. a Quantization")
        if not 0 <= agreement <= 1:
            raise InputError(f"agreement is {agreement}, expected a share in [0, 1]")
        self.name = "feature squeezing"
        self.squeezers = tuple(squeezers)
        self.agreement = agreement

    @property
    def passes(self) -> float:
        """One for the item and one per squeezer, if all are kept."""
        return 1 + len(self.squeezers)

    def settings(self) -> dict[str, Any]:
        """Return the squeezers and the required agreement."""
        return {
            "name": self.name,
            "squeezers": [s.settings() for s in self.squeezers],
            "agreement": self.agreement,
        }

    def suspicion(self, rows: Array) -> Array:
        """Return the largest distance of each row."""
        return np.asarray(rows.max(axis=1))

    def _learn(
        self, model: InstrumentedModel, clean: Sequence[Batch], generator: torch.Generator
    ) -> None:
        self._require_items(len(clean), 2)
        own = [int(logits_of(model, item).argmax()) for item in clean]
        shares = []
        for squeezer in self.squeezers:
            squeezed = (squeezer.purify(item, generator=generator) for item in clean)
            named = [int(logits_of(model, item).argmax()) for item in squeezed]
            shares.append(float(np.mean(np.equal(named, own))))
        least = min(self.agreement, max(shares))
        pairs = zip(self.squeezers, shares, strict=True)
        self.kept_ = tuple(squeezer for squeezer, share in pairs if share >= least)

    def _measure(self, model: InstrumentedModel, item: Batch, generator: torch.Generator) -> Array:
        self._require_fitted("kept_")
        sure = logits_of(model, item).softmax(dim=0)
        squeezed = [s.purify(item, generator=generator) for s in self.kept_]
        distances = [(logits_of(model, x).softmax(dim=0) - sure).abs().sum() for x in squeezed]
        return np.array([float(d) for d in distances])
