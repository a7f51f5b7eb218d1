"""Transform change rates so that clean ones are roughly normal, for recordings of any length."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from nip_audio.detectors.fitted import FittedRates

__all__ = ["LogRates"]

Array = NDArray[np.float64]


class LogRates(TransformerMixin, BaseEstimator, FittedRates):  # type: ignore[misc]
    """Logarithm of change rates, corrected for length.

    Neuron outputs are averages over time, so that noise changes those of a long recording less.
    Without the correction, short clean files would look attacked, and long attacked ones clean. The
    slope of each log rate over the log length is fitted by least squares, and is not extrapolated
    beyond the lengths of the training rows.

    Rows hold rates ≥ 0, signed changes and, in the last column, a length > 0 in any unit. Signed
    changes c are heavy-tailed and are transformed to sign(c)·log(1 + |c|).

    Args:
        signed: Number of columns before the last that hold signed changes.

    Attributes:
        slopes_: (F,) slopes of the log rates over the log length.
        center_: Mean log length, at which nothing is corrected.
        range_: (2,) least and largest log length of the training rows.
    """

    def __init__(self, *, signed: int = 0) -> None:
        self.signed = signed

    def fit(self, X: ArrayLike, y: object = None) -> Self:  # noqa: ARG002
        """Fit on rows (n ≥ 2, F + 1); ``y`` is ignored.

        Raises:
            InputError: If a rate is negative, or a length is not positive.
        """
        rates, lengths = self._split(validate_data(self, X, dtype=np.float64, ensure_min_samples=2))
        self.center_ = float(lengths.mean())
        self.range_ = np.array([lengths.min(), lengths.max()])
        centred = lengths - self.center_
        spread = float(centred @ centred)
        self.slopes_ = centred @ rates / spread if spread > 0 else np.zeros(rates.shape[1])
        return self

    def _rows(self, X: ArrayLike) -> Array:
        check_is_fitted(self)
        return np.asarray(validate_data(self, X, dtype=np.float64, reset=False))

    def _require_fitted(self) -> None:
        check_is_fitted(self)
