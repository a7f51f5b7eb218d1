"""What clean-only detectors have learnt, which judges without scikit-learn.

The estimators of ``clean``, ``density`` and ``rates`` fit and are subclasses of these; a screening
only judges, and starts in half the time because it imports these alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from nip_audio.errors import InputError

__all__ = [
    "FittedDensity",
    "FittedDetector",
    "FittedDistance",
    "FittedPerceptron",
    "FittedRates",
]

Array = NDArray[np.float64]

_LEAST_SQUARE = 1e-30  # the root has no gradient at 0
_LEAST_REACH = 1e-10
_FLOOR = 1e-6


class Fitted:
    """Something fitted to rows of a known length.

    Attributes:
        n_features_in_: Number of columns of the rows.
    """

    n_features_in_: int

    def _rows(self, X: ArrayLike) -> Array:
        """Check rows that are judged; estimators check as scikit-learn does."""
        rows = np.asarray(X, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.n_features_in_ or not np.isfinite(rows).all():
            raise InputError(
                f"rows are {rows.shape} or not finite, expected (n, {self.n_features_in_}) finite "
                "numbers; measure again with the settings of the fit"
            )
        return rows

    def _require_fitted(self) -> None:
        """Refuse an estimator that is not fitted; what was read from a file always is."""


class FittedDetector(Fitted, ABC):
    """Distance of vectors from clean ones.

    Attributes:
        center_: (F,) median of the clean vectors.
        scale_: (F,) robust standard deviation of the clean vectors.
        offset_: Negative distance below which a row is an outlier.
    """

    center_: Array
    scale_: Array
    offset_: float

    def distance(self, X: ArrayLike) -> Array:
        """Return the distance of each row from clean vectors, (n,)."""
        return np.asarray(self.distance_of(torch.tensor(self._rows(X))).numpy())

    def explain(self, row: ArrayLike) -> Array:
        """Return the signed deviation of each feature of one row, in robust deviations, (F,)."""
        self._require_fitted()
        rows = self._rows(np.asarray(row, dtype=np.float64)[None])
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


class FittedDistance(FittedDetector):
    """Mahalanobis distance from clean vectors, as ``CleanDistance`` fits it.

    Attributes:
        precision_: (F, F) inverse covariance of the scaled vectors.
    """

    precision_: Array

    def distance_of(self, rows: Tensor) -> Tensor:
        """Compute ``distance`` of (n, F) float64 rows in the autograd graph: (n,)."""
        self._require_fitted()
        scaled = self._scaled(rows)
        squared = ((scaled @ torch.from_numpy(self.precision_).to(rows)) * scaled).sum(dim=1)
        return squared.clamp_min(_LEAST_SQUARE).sqrt()

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the fitted arrays."""
        self._require_fitted()
        return _tensors(center=self.center_, scale=self.scale_, precision=self.precision_)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], *, offset: float) -> Self:
        """Rebuild a detector from the arrays of ``to_tensors`` and the fitted ``offset_``."""
        detector = cls()
        detector.center_ = tensors["center"].numpy()
        detector.scale_ = tensors["scale"].numpy()
        detector.precision_ = tensors["precision"].numpy()
        detector.offset_ = offset
        detector.n_features_in_ = len(detector.center_)
        return detector

    def _learn(self, scaled: Array) -> None:
        raise InputError("a covariance is fitted by CleanDistance; use it to fit")


class FittedDensity(FittedDetector):
    """Local outlier factor among clean vectors, as ``CleanDensity`` fits it.

    Attributes:
        neighbours: Number of neighbouring rows from which the density is computed.
        rows_: (n, F) scaled training rows.
        reach_: (n,) distance of each row to the farthest of its neighbours.
        density_: (n,) local reachability density of each row.
    """

    neighbours: int
    rows_: Array
    reach_: Array
    density_: Array

    def distance_of(self, rows: Tensor) -> Tensor:
        """Compute ``distance`` of (n, F) float64 rows in the autograd graph: (n,)."""
        self._require_fitted()
        known, reach, density = (
            torch.from_numpy(a).to(rows) for a in (self.rows_, self.reach_, self.density_)
        )
        near, who = _nearest(self._scaled(rows), known, self._count)
        own = 1 / (torch.maximum(near, reach[who]).mean(dim=1) + _LEAST_REACH)
        return density[who].mean(dim=1) / own

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the scaled training rows, and their centre and scale."""
        self._require_fitted()
        return _tensors(rows=self.rows_, center=self.center_, scale=self.scale_)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], *, offset: float, neighbours: int) -> Self:
        """Rebuild a detector from the arrays of ``to_tensors``, the fitted offset and the setting.

        Older files hold the unscaled rows only, from which centre and scale are computed.
        """
        detector = cls()
        detector.neighbours = neighbours
        if tensors.keys() == {"rows"}:
            detector._fit(tensors["rows"].numpy())
        else:
            detector.center_, detector.scale_ = tensors["center"].numpy(), tensors["scale"].numpy()
            detector._learn(tensors["rows"].numpy())
        detector.offset_ = offset
        detector.n_features_in_ = detector.rows_.shape[1]
        return detector

    @property
    def _count(self) -> int:
        return min(self.neighbours, len(self.rows_) - 1)

    def _learn(self, scaled: Array) -> None:
        self.rows_ = scaled
        known = torch.from_numpy(self.rows_)
        near, who = _nearest(known, known, self._count, own=True)
        reach = near[:, -1]
        self.reach_ = reach.numpy()
        self.density_ = (1 / (torch.maximum(near, reach[who]).mean(dim=1) + _LEAST_REACH)).numpy()


class FittedPerceptron(Fitted):
    """Network with one hidden layer, as ``AttackPerceptron`` fits it: rows → log-odds of an attack.

    Attributes:
        weights_: Arrays of the network by name: ``center`` and ``scale`` of the input, ``w1``,
            ``b1``, ``w2`` and ``b2`` of the two layers, and ``clip``, the largest scaled input.
    """

    weights_: Mapping[str, Array]

    def distance(self, X: ArrayLike) -> Array:
        """Return the log-odds of an attack of each row, (n,)."""
        return np.asarray(self.distance_of(torch.tensor(self._rows(X))).numpy())

    def distance_of(self, rows: Tensor) -> Tensor:
        """Compute ``distance`` of (n, F) float64 rows in the autograd graph: (n,)."""
        self._require_fitted()
        w = {name: torch.from_numpy(array).to(rows) for name, array in self.weights_.items()}
        scaled = (rows - w["center"]) / w["scale"]
        hidden = torch.relu(scaled.clamp(-w["clip"], w["clip"]) @ w["w1"] + w["b1"])
        return (hidden @ w["w2"] + w["b2"])[:, 0]

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the fitted arrays."""
        self._require_fitted()
        return _tensors(**self.weights_)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Rebuild a network from the arrays of ``to_tensors``."""
        network = cls()
        network.weights_ = {name: tensor.numpy() for name, tensor in tensors.items()}
        network.n_features_in_ = len(network.weights_["center"])
        return network


class FittedRates(Fitted):
    """Transformation of change rates, corrected for length, as ``LogRates`` fits it.

    Attributes:
        signed: Number of columns before the last that hold signed changes.
        slopes_: (F,) slopes of the log rates over the log length.
        center_: Mean log length, at which nothing is corrected.
        range_: (2,) least and largest log length of the training rows.
    """

    signed: int
    slopes_: Array
    center_: float
    range_: Array

    def transform(self, X: ArrayLike) -> Array:
        """Transform rows (n, F + 1) to corrected logarithms (n, F)."""
        rates, lengths = self._split(self._rows(X))
        excess = np.clip(lengths, *self.range_) - self.center_
        return np.asarray(rates - excess[:, None] * self.slopes_)

    def correct(self, rates: Tensor, length: float) -> Tensor:
        """Compute ``transform`` of (n, F) float64 rows of one length in the autograd graph."""
        self._require_fitted()
        excess = float(np.clip(np.log(length), *self.range_)) - self.center_
        split = rates.shape[1] - self.signed
        changes = rates[:, split:]
        signed = changes.sign() * torch.log1p(changes.abs())
        scaled = torch.cat([torch.log(rates[:, :split] + _FLOOR), signed], dim=1)
        return scaled - excess * torch.from_numpy(self.slopes_).to(rates)

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the fitted arrays."""
        self._require_fitted()
        lengths = torch.tensor([self.center_, *self.range_], dtype=torch.float64)
        return _tensors(slopes=self.slopes_) | {"lengths": lengths}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], *, signed: int = 0) -> Self:
        """Rebuild a transformer from the arrays of ``to_tensors`` and the setting."""
        rates = cls()
        rates.signed = signed
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


def _tensors(**arrays: Array) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}


def _nearest(
    rows: Tensor, known: Tensor, count: int, *, own: bool = False
) -> tuple[Tensor, Tensor]:
    """Return distances and indices of the nearest known rows, (n, count), nearest first.

    Args:
        rows: (n, F) rows.
        known: (m, F) rows among which neighbours are searched.
        count: Number of neighbours.
        own: Whether ``rows`` are the known rows themselves; no row is then its own neighbour.
    """
    # distances through the dot product lose the digits in which near rows differ
    distances = torch.cdist(rows, known, compute_mode="donot_use_mm_for_euclid_dist")
    if own:
        distances = distances.fill_diagonal_(torch.inf)
    near, who = distances.topk(count, dim=1, largest=False)
    return near, who
