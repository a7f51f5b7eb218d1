"""Dissector: measure whether confidence in the prediction grows from layer to layer."""

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
    """Return the support of a sub-model for a class: log of p / (p + p of the best other class).

    Args:
        logits: (C ≥ 2,) logits of the sub-model.
        named: Class that the whole model predicts.

    Example:
        >>> round(float(np.exp(snapshot_validity(np.log([0.6, 0.2, 0.2]), 0))), 6)
        0.75
        >>> round(float(np.exp(snapshot_validity(np.log([0.6, 0.2, 0.2]), 1))), 6)
        0.25
    """
    return -float(np.logaddexp(0, np.delete(logits, named).max() - logits[named]))


class Dissector(LayerBaseline):
    """Support of the layers for the model's prediction (Wang et al., ICSE 2020).

    Each layer has a sub-model, a linear classifier of its neuron outputs. A row holds the logarithm
    of each layer's snapshot validity, from the first layer to the last: the validities of clean
    items themselves are close to one, where no distance can be fitted to them. The suspicion is one
    minus the weighted mean of the validities (the profile validity, with linearly growing weights
    1, 2, 3, …).

    Deviation: the paper trains each sub-model on the training set and its labels. Here there are
    few clean items, often one or two of a class and none of most, and their labels are the model's
    predictions; a classifier of hard labels would never predict a class that it has not seen. The
    linear layer is therefore fitted to the model's logits, by ridge regression with a strength
    chosen by leave-one-out validation. Feature maps are averaged over time first.

    Args:
        layers: Names of the tapped layers, in the order in which the model runs them.

    Attributes:
        sub_models_: Fitted sub-model of each layer.
    """

    source = "Wang et al. (Dissector), ICSE 2020: profile validity"

    sub_models_: tuple[Pipeline, ...]

    def __init__(self, layers: Sequence[str]) -> None:
        self.name = "Dissector"
        super().__init__(layers)

    def suspicion(self, rows: Array) -> Array:
        """Return one minus the profile validity."""
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
