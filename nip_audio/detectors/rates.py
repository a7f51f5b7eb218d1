"""Change rates on a scale where clean ones are roughly normal, whatever the recording's length."""

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

    Neuron outputs are averages over time, so noise moves those of a long recording less: without
    the correction short clean files look attacked, and attacked long ones clean. The slope of each
    log rate on the log length is fitted by least squares; beyond the lengths seen it is not
    extrapolated.

    Rows are (rates ≥ 0, signed changes, length > 0): the last column is the length, in any unit.
    Signed changes c are put on the scale sign(c)·log(1 + |c|): they are heavy-tailed.

    Args:
        signed: How many columns before the last are signed changes.

    Attributes:
        slopes_: (F,) change of log rate with log length.
        center_: Mean log length, at which nothing is corrected.
        range_: (2,) log lengths seen.
    """

    def __init__(self, *, signed: int = 0) -> None:
        """Keep the settings."""
        self.signed = signed

    def fit(self, X: ArrayLike, y: object = None) -> Self:  # noqa: ARG002
        """Fit on (n ≥ 2, F + 1); ``y`` is ignored.

        Raises:
            InputError: If a rate is negative, or a length not positive.
        """
        rates, lengths = self._split(validate_data(self, X, dtype=np.float64, ensure_min_samples=2))
        self.center_ = float(lengths.mean())
        self.range_ = np.array([lengths.min(), lengths.max()])
        centred = lengths - self.center_
        spread = float(centred @ centred)
        self.slopes_ = centred @ rates / spread if spread > 0 else np.zeros(rates.shape[1])
        return self

    def transform(self, X: ArrayLike) -> Array:
        """Return (n, F)."""
        check_is_fitted(self)
        rates, lengths = self._split(validate_data(self, X, dtype=np.float64, reset=False))
        excess = np.clip(lengths, *self.range_) - self.center_
        return np.asarray(rates - excess[:, None] * self.slopes_)

    def correct(self, rates: Tensor, length: float) -> Tensor:
        """``transform`` of (n, F) float64 rows of one length, in the autograd graph."""
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
        """Rebuild from what ``to_tensors`` gave, and the setting."""
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
                f"expected rows of change rates ≥ 0, {self.signed} signed changes and, last, a "
                "length > 0"
            )
        changes = rows[:, split:-1]
        signed = np.sign(changes) * np.log1p(np.abs(changes))
        logs = np.log(rows[:, :split] + _FLOOR)
        return np.column_stack([logs, signed]), np.log(rows[:, -1])
