"""Mahalanobis distance of a model's neuron outputs from those of clean items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf_shrinkage

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.detectors.baselines._baseline import LayerBaseline, look_inside, require_at_least

__all__ = ["ActivationMahalanobis", "TiedGaussians"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TiedGaussians:
    """Gaussians with one common covariance, stored in factors for few vectors of high dimension.

    The covariance is shrunk (Ledoit–Wolf): (1 − a) S + a m I. For n vectors S has at most n axes;
    the variance along all other directions is a m, so that no (N, N) matrix is needed.

    Attributes:
        means: (G, N) means of the Gaussians.
        axes: (R, N) orthonormal axes of S.
        variances: (R,) variances along the axes.
        rest: Variance along all other directions.
    """

    means: Array
    axes: Array
    variances: Array
    rest: float

    @staticmethod
    def fit(means: Array, residuals: Array) -> TiedGaussians:
        """Fit the covariance to (n, N) differences of vectors from the means they belong to.

        If all vectors are equal, the variance is set to one.
        """
        count, size = residuals.shape
        target = float((residuals**2).mean())
        if target == 0:
            return TiedGaussians(means, np.zeros((0, size)), np.zeros(0), 1.0)
        shrinkage = max(float(ledoit_wolf_shrinkage(residuals, assume_centered=True)), 1e-3)
        _, singular, axes = np.linalg.svd(residuals, full_matrices=False)
        kept = singular > singular[0] * 1e-9
        variances = (1 - shrinkage) * singular[kept] ** 2 / count + shrinkage * target
        return TiedGaussians(means, axes[kept], variances, shrinkage * target)

    def distance(self, vector: Array) -> float:
        """Return the Mahalanobis distance of a vector (N,) from the nearest mean."""
        away = vector - self.means
        along = away @ self.axes.T
        across = np.clip((away**2).sum(axis=1) - (along**2).sum(axis=1), 0, None)
        return float(np.sqrt(((along**2) / self.variances).sum(axis=1) + across / self.rest).min())


class ActivationMahalanobis(LayerBaseline):
    """Distance of each layer's neuron outputs from the nearest class of clean items (Lee 2018).

    Classes are the model's predictions; in each layer they share one covariance. A row has one
    distance per layer; the suspicion is their sum.

    Deviation: a class mean needs several items. Classes with fewer than ``fewest`` share one mean,
    that of all items; if every class has fewer, each layer has a single Gaussian, and
    ``class_means_`` is 0. The covariance is shrunk (Ledoit–Wolf). The paper weights the layers by a
    logistic regression on attacked items, which are not available here, and first moves the input
    towards the nearest class, which costs one gradient per layer; both are omitted.

    Args:
        layers: Names of the tapped layers.
        fewest: Least number of items for which a class has its own mean.

    Attributes:
        gaussians_: Fitted Gaussians of each layer.
        class_means_: Number of classes with their own mean.
    """

    source = "Lee et al., NeurIPS 2018, Eq. 1–2"

    gaussians_: tuple[TiedGaussians, ...]
    class_means_: int

    def __init__(self, layers: Sequence[str], *, fewest: int = 3) -> None:
        require_at_least("fewest", fewest, 2)
        self.name = "Mahalanobis on activations"
        super().__init__(layers)
        self.fewest = fewest

    def settings(self) -> dict[str, Any]:
        """Return the layers and the least number of items for a class mean."""
        return super().settings() | {"fewest": self.fewest}

    def suspicion(self, rows: Array) -> Array:
        """Return the sum of the distances over the layers."""
        return np.asarray(rows.sum(axis=1))

    def _learn(
        self, model: InstrumentedModel, clean: Sequence[Batch], generator: torch.Generator
    ) -> None:
        self._require_items(len(clean), 4)
        stacks, logits = self._looks(model, clean)
        named = logits.argmax(axis=1)
        classes, counts = np.unique(named, return_counts=True)
        own = classes[counts >= self.fewest]
        self.class_means_ = len(own)
        self.gaussians_ = tuple(_fit_layer(stack, named, own) for stack in stacks)

    def _measure(self, model: InstrumentedModel, item: Batch, generator: torch.Generator) -> Array:
        self._require_fitted("gaussians_")
        inside, _ = look_inside(model, item, self.layers)
        pairs = zip(self.gaussians_, inside, strict=True)
        return np.array([gaussians.distance(outputs) for gaussians, outputs in pairs])


def _fit_layer(outputs: Array, named: NDArray[np.int64], own: NDArray[np.int64]) -> TiedGaussians:
    means = [outputs[named == c].mean(axis=0) for c in own]
    group = np.full(len(outputs), len(own))
    for index, c in enumerate(own):
        group[named == c] = index
    if (group == len(own)).any():
        means.append(outputs.mean(axis=0))
    stacked = np.stack(means)
    return TiedGaussians.fit(stacked, outputs - stacked[group])
