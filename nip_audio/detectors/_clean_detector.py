"""Base class of detectors that are fitted to clean vectors alone."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from nip_audio.detectors.fitted import FittedDetector

Array = NDArray[np.float64]


class CleanDetector(OutlierMixin, BaseEstimator, FittedDetector):  # type: ignore[misc]
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

    def score_samples(self, X: ArrayLike) -> Array:
        """Return the negative distance: higher is more normal, scikit-learn's convention."""
        return -self.distance(X)

    def decision_function(self, X: ArrayLike) -> Array:
        """Return ``score_samples`` − ``offset_``: negative is an outlier."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Return 1 for rows like the clean ones and −1 for outliers."""
        return np.where(self.decision_function(X) < 0, -1, 1).astype(np.int64)

    def _rows(self, X: ArrayLike) -> Array:
        check_is_fitted(self)
        return np.asarray(validate_data(self, X, dtype=np.float64, reset=False))

    def _require_fitted(self) -> None:
        check_is_fitted(self)
