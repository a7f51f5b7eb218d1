"""Dissector: do the layers come to the model's decision with growing confidence?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.detectors.baselines._baseline import LayerBaseline, look_inside

__all__ = ["Dissector", "snapshot_validity"]

Array = NDArray[np.float64]


def snapshot_validity(logits: Array, named: int) -> float:
    """How far a sub-model supports a class: log of p_named / (p_named + p_best other), at most 0.

    Args:
        logits: (C ≥ 2,) of the sub-model.
        named: Class that the whole model names.

    Example:
        >>> round(float(np.exp(snapshot_validity(np.log([0.6, 0.2, 0.2]), 0))), 6)
        0.75
        >>> round(float(np.exp(snapshot_validity(np.log([0.6, 0.2, 0.2]), 1))), 6)
        0.25
    """
    return -float(np.logaddexp(0, np.delete(logits, named).max() - logits[named]))


class Dissector(LayerBaseline):
    """Validity of the model's decision as its layers see it (Wang et al., ICSE 2020).

    A sub-model of each layer is a linear classifier of the layer's neuron outputs. A row has the
    logarithm of each layer's snapshot validity, the first layer first: the validities of clean
    items lie at one, where no distance can be fitted to them. The suspicion is one less the mean of
    the validities themselves, with growing weights (the profile validity, with linear growth: 1, 2,
    3, …).

    Deviation: the paper trains each sub-model on the training set and its labels. Here there are a
    few clean items, often one or two of a class and none of most, and the labels are the model's
    own; a classifier of hard labels would never name a class that it has not seen. So the linear
    layer is fitted to the model's logits, by ridge regression whose strength is chosen by leaving
    one out. Feature maps are averaged over time first.

    Args:
        layers: Tapped layers, in the order in which the model runs them.

    Attributes:
        sub_models_: One of each layer.
    """

    source = "Wang et al. (Dissector), ICSE 2020: profile validity"

    sub_models_: tuple[Pipeline, ...]

    def __init__(self, layers: Sequence[str]) -> None:
        """See the class."""
        self.name = "Dissector"
        super().__init__(layers)

    def suspicion(self, rows: Array) -> Array:
        """Return 1 − the profile validity."""
        growth = np.arange(1, rows.shape[1] + 1)
        return np.asarray(1 - np.average(np.exp(rows), axis=1, weights=growth))

    def _learn(
        self, model: InstrumentedModel, clean: Sequence[Batch], generator: torch.Generator
    ) -> None:
        self._require_items(len(clean), 4)
        stacks, targets = self._looks(model, clean)
        self.sub_models_ = tuple(
            make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 13))).fit(stack, targets)
            for stack in stacks
        )

    def _measure(self, model: InstrumentedModel, item: Batch, generator: torch.Generator) -> Array:
        self._require_fitted("sub_models_")
        inside, logits = look_inside(model, item, self.layers)
        named = int(logits.argmax())
        answers = [
            sub.predict(outputs[None])[0]
            for sub, outputs in zip(self.sub_models_, inside, strict=True)
        ]
        return np.array([snapshot_validity(answer, named) for answer in answers])
