"""Clean-only detection without a shape: how thin clean vectors lie where a vector is.

No adversarial example is ever seen. It is two-sided by nature: a strong adversarial example is
*more* stable under noise than clean audio, and where no clean vector lies is suspicious whichever
side it is on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

__all__ = ["CleanDensity"]

Array = NDArray[np.float64]

_TINY = 1e-10


class CleanDensity(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """Local outlier factor among clean vectors, scaled by median and absolute deviation.

    About 1 among the clean vectors, more where they are thinner than around their neighbours. It
    follows any shape of the clean set; but as many bad rows as there are neighbours, if they lie
    together, make a dense place of their own.

    Source: Breunig et al., "LOF" (SIGMOD 2000). Equal to scikit-learn's ``LocalOutlierFactor`` with
    ``novelty=True``, which has no gradient.

    Args:
        neighbours: Rows that the density is taken from; fewer if there are not so many.
        contamination: Share of the training rows that ``predict`` calls outliers.

    Attributes:
        center_: (F,) median.
        scale_: (F,) robust standard deviation.
        rows_: (n, F) scaled training rows.
        reach_: (n,) distance of each to its farthest neighbour.
        density_: (n,) local reachability density of each.
        offset_: ``score_samples`` below it is an outlier.
    """

    def __init__(self, *, neighbours: int = 20, contamination: float = 0.05) -> None:
        """Keep the settings."""
        self.neighbours = neighbours
        self.contamination = contamination

    def fit(self, X: ArrayLike, y: object = None) -> Self:  # noqa: ARG002
        """Fit on clean vectors (n ≥ 2, F); ``y`` is ignored.

        Raises:
            ValueError: For fewer than two rows, or values that are not finite.
        """
        rows = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        self._learn(rows)
        self.offset_ = float(np.quantile(self.score_samples(rows), self.contamination))
        return self

    def distance(self, X: ArrayLike) -> Array:
        """Return the outlier factor of each row, (n,) > 0."""
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=np.float64, reset=False)
        return np.asarray(self.distance_of(torch.tensor(rows)).numpy())

    def score_samples(self, X: ArrayLike) -> Array:
        """Return the negative factor: higher is more normal, scikit-learn's convention."""
        return -self.distance(X)

    def decision_function(self, X: ArrayLike) -> Array:
        """Return ``score_samples`` − ``offset_``: negative is an outlier."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Return 1 for rows like the clean ones and −1 for outliers."""
        return np.where(self.decision_function(X) < 0, -1, 1).astype(np.int64)

    def explain(self, row: ArrayLike) -> Array:
        """Return how many robust deviations each feature of one row is off, signed, (F,)."""
        check_is_fitted(self)
        rows = validate_data(self, [row], dtype=np.float64, reset=False)
        return np.asarray((rows[0] - self.center_) / self.scale_)

    def distance_of(self, rows: Tensor) -> Tensor:
        """``distance`` of (n, F) float64 rows, in the autograd graph: (n,)."""
        check_is_fitted(self)
        center, scale, known, reach, density = (
            torch.from_numpy(array).to(rows)
            for array in (self.center_, self.scale_, self.rows_, self.reach_, self.density_)
        )
        near, who = _nearest((rows - center) / scale, known, self._count)
        own = 1 / (torch.maximum(near, reach[who]).mean(dim=1) + _TINY)
        return density[who].mean(dim=1) / own

    def to_tensors(self) -> dict[str, Tensor]:
        """Return what it was fitted on."""
        check_is_fitted(self)
        rows = self.rows_ * self.scale_ + self.center_
        return {"rows": torch.from_numpy(np.ascontiguousarray(rows))}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], *, offset: float, neighbours: int
    ) -> CleanDensity:
        """Rebuild from what ``to_tensors`` gave, the fitted ``offset_`` and the setting."""
        detector = cls(neighbours=neighbours)
        detector._learn(tensors["rows"].numpy())
        detector.offset_ = offset
        detector.n_features_in_ = detector.rows_.shape[1]
        return detector

    @property
    def _count(self) -> int:
        return min(self.neighbours, len(self.rows_) - 1)

    def _learn(self, rows: Array) -> None:
        self.center_ = np.median(rows, axis=0)
        deviation = np.median(np.abs(rows - self.center_), axis=0) * 1.4826
        self.scale_ = np.where(deviation > 1e-12, deviation, 1.0)
        self.rows_ = (rows - self.center_) / self.scale_
        known = torch.from_numpy(self.rows_)
        near, who = _nearest(known, known, self._count, own=True)
        reach = near[:, -1]
        self.reach_ = reach.numpy()
        self.density_ = (1 / (torch.maximum(near, reach[who]).mean(dim=1) + _TINY)).numpy()


def _nearest(
    rows: Tensor, known: Tensor, count: int, *, own: bool = False
) -> tuple[Tensor, Tensor]:
    """Distances and indices of the nearest known rows, (n, count), nearest first.

    Args:
        rows: (n, F).
        known: (m, F).
        count: How many.
        own: The rows are the known ones; none is its own neighbour.
    """
    # not through the dot product: it loses the digits in which near rows differ
    distances = torch.cdist(rows, known, compute_mode="donot_use_mm_for_euclid_dist")
    if own:
        distances = distances.fill_diagonal_(torch.inf)
    near, who = distances.topk(count, dim=1, largest=False)
    return near, who
