"""Clean-only detection that adds a density and one single telling number."""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.model_selection import KFold
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from nip_audio.detectors._clean_detector import Array, CleanDetector
from nip_audio.detectors.density import CleanDensity

__all__ = ["CleanSum"]

_FOLDS = 5
_HIGH = 0.95


class CleanSum(CleanDetector):
    """Sum of a local outlier factor of all entries but the last, and of the last entry.

    One more entry among forty hardly changes a density, however telling it is. Here the last entry
    counts as much as all others together: both terms are scaled to 0 at the median of clean rows
    and 1 at their 95 % quantile. The last entry is one-sided; a negative distance means that a row
    is less suspicious than most clean ones.

    Args:
        neighbours: Number of neighbouring rows of the density, as in ``CleanDensity``.
        contamination: Share of the training rows that ``predict`` classifies as outliers.

    Attributes:
        density_: Fitted ``CleanDensity`` of all entries but the last.
        places_: (2, 2) median and 95 % quantile of the density's distances and of the last entry.
        center_: (F,) median of the clean vectors.
        scale_: (F,) robust standard deviation of the clean vectors.
        offset_: Value of ``score_samples`` below which a row is an outlier.
    """

    def __init__(self, *, neighbours: int = 20, contamination: float = 0.05) -> None:
        self.neighbours = neighbours
        self.contamination = contamination

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Fit on clean vectors (n ≥ 4, F ≥ 2); ``y`` is ignored.

        Raises:
            ValueError: If there are fewer rows or columns, or a value is not finite.
        """
        validate_data(self, X, dtype=np.float64, ensure_min_samples=4, ensure_min_features=2)
        return super().fit(X, y)

    def distance_of(self, rows: Tensor) -> Tensor:
        """Compute ``distance`` of (n, F) float64 rows in the autograd graph: (n,)."""
        check_is_fitted(self)
        scaled = self._scaled(rows)
        both = torch.stack([self.density_.distance_of(scaled[:, :-1]), scaled[:, -1]])
        middle, high = torch.from_numpy(self.places_).to(rows).T[:, :, None]
        terms: Tensor = (both - middle) / (high - middle)
        return terms.sum(dim=0)

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the arrays of the density, and centre, scale and quantiles."""
        check_is_fitted(self)
        arrays = {"center": self.center_, "scale": self.scale_, "places": self.places_}
        tensors = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}
        return tensors | {f"density.{n}": t for n, t in self.density_.to_tensors().items()}

    def _learn(self, scaled: Array) -> None:
        density = CleanDensity(neighbours=self.neighbours)
        held_out = np.empty(len(scaled))
        folds = KFold(min(_FOLDS, len(scaled) // 2), shuffle=True, random_state=0)
        for learn, rest in folds.split(scaled):
            held_out[rest] = density.fit(scaled[learn, :-1]).distance(scaled[rest, :-1])
        self.density_ = CleanDensity(neighbours=self.neighbours).fit(scaled[:, :-1])
        places = np.quantile([held_out, scaled[:, -1]], [0.5, _HIGH], axis=1).T
        places[:, 1] = np.maximum(places[:, 1], places[:, 0] + 1e-9)
        self.places_ = places
