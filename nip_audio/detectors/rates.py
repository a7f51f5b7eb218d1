"""Transform change rates so that clean ones are roughly normal, for recordings of any length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from nip_audio.errors import InputError

__all__ = ["LogRates"]

Array = NDArray[np.float64]

_FLOOR = 1e-6


class LogRates(TransformerMixin, BaseEstimator):  # type: ignore[misc]
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

    def transform(self, X: ArrayLike) -> Array:
        """Transform rows (n, F + 1) to corrected logarithms (n, F)."""
        check_is_fitted(self)
        rates, lengths = self._split(validate_data(self, X, dtype=np.float64, reset=False))
        excess = np.clip(lengths, *self.range_) - self.center_
        return np.asarray(rates - excess[:, None] * self.slopes_)

    def correct(self, rates: Tensor, length: float) -> Tensor:
        """Compute ``transform`` of (n, F) float64 rows of one length in the autograd graph."""
        check_is_fitted(self)
        excess = float(np.clip(np.log(length), *self.range_)) - self.center_
        split = rates.shape[1] - self.signed
        changes = rates[:, split:]
        signed = changes.sign() * torch.log1p(changes.abs())
        scaled = torch.cat([torch.log(rates[:, :split] + _FLOOR), signed], dim=1)
        return scaled - excess * torch.from_numpy(self.slopes_).to(rates)

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the fitted arrays."""
        check_is_fitted(self)
        return {
            "slopes": torch.from_numpy(np.ascontiguousarray(self.slopes_)),
            "lengths": torch.tensor([self.center_, *self.range_], dtype=torch.float64),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], *, signed: int = 0) -> LogRates:
        """Rebuild a transformer from the arrays of ``to_tensors`` and the setting."""
        rates = cls(signed=signed)
        rates.slopes_ = tensors["slopes"].numpy()
        rates.center_, *limits = tensors["lengths"].tolist()
        rates.range_ = np.array(limits)
        rates.n_features_in_ = len(rates.slopes_) + 1
        return rates

    def _split(self, rows: Array) -> tuple[Array, Array]:
        split = rows.shape[1] - 1 - self.signed
        if split < 1 or (rows[:, :split] < 0).any() or (rows[:, -1] <= 0).any():
            raise InputError(
                f"got {rows.shape[1]} columns or values out of range, expected rows of change "
                f"rates ≥ 0, {self.signed} signed changes and, last, a length > 0; measure again "
                "with the settings of the fit"
            )
        changes = rows[:, split:-1]
        signed = np.sign(changes) * np.log1p(np.abs(changes))
        logs = np.log(rows[:, :split] + _FLOOR)
        return np.column_stack([logs, signed]), np.log(rows[:, -1])
