"""Base class of detectors that are fitted to clean vectors alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

Array = NDArray[np.float64]


class CleanDetector(OutlierMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """A detector that scores vectors by their distance from clean ones, as in scikit-learn.

    A subclass has a setting ``contamination``, the share of training rows classified as outliers,
    and implements ``_learn`` and ``distance_of``.

    Attributes:
        center_: (F,) median of the clean vectors.
        scale_: (F,) robust standard deviation of the clean vectors.
        offset_: Value of ``score_samples`` below which a row is an outlier.
    """

    contamination: float

    def fit(self, X: ArrayLike, y: object = None) -> Self:  # noqa: ARG002
        """Fit on clean vectors (n ≥ 2, F); ``y`` is ignored.

        Raises:
            ValueError: If there are fewer than two rows, or a value is not finite.
        """
        rows = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        self._fit(rows)
        self.offset_ = float(np.quantile(-self.distance(rows), self.contamination))
        return self

    def distance(self, X: ArrayLike) -> Array:
        """Return the distance of each row from clean vectors, (n,)."""
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=np.float64, reset=False)
        return np.asarray(self.distance_of(torch.tensor(rows)).numpy())

    def score_samples(self, X: ArrayLike) -> Array:
        """Return the negative distance: higher is more normal, scikit-learn's convention."""
        return -self.distance(X)

    def decision_function(self, X: ArrayLike) -> Array:
        """Return ``score_samples`` − ``offset_``: negative is an outlier."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Return 1 for rows like the clean ones and −1 for outliers."""
        return np.where(self.decision_function(X) < 0, -1, 1).astype(np.int64)

    def explain(self, row: ArrayLike) -> Array:
        """Return the signed deviation of each feature of one row, in robust deviations, (F,)."""
        check_is_fitted(self)
        rows = validate_data(self, [row], dtype=np.float64, reset=False)
        return np.asarray((rows[0] - self.center_) / self.scale_)

    @abstractmethod
    def distance_of(self, rows: Tensor) -> Tensor:
        """Compute ``distance`` of (n, F) float64 rows in the autograd graph: (n,)."""

    @abstractmethod
    def _learn(self, scaled: Array) -> None:
        """Learn from clean rows that are centred and scaled."""

    def _fit(self, rows: Array) -> None:
        self.center_ = np.median(rows, axis=0)
        deviation = np.median(np.abs(rows - self.center_), axis=0) * 1.4826
        self.scale_ = np.where(deviation > 1e-12, deviation, 1.0)
        self._learn((rows - self.center_) / self.scale_)

    def _scaled(self, rows: Tensor) -> Tensor:
        center, scale = (torch.from_numpy(a).to(rows) for a in (self.center_, self.scale_))
        return (rows - center) / scale
