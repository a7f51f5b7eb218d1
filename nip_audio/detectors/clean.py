"""Clean-only detection: a two-sided robust distance from the distribution of clean vectors.

No adversarial example is ever seen. Two-sided matters: a strong adversarial example is *more*
stable under noise than clean audio, and a one-sided threshold on the change rate calls it safe.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from sklearn.covariance import LedoitWolf, ShrunkCovariance
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from nip_audio.detectors._clean_detector import Array, CleanDetector

__all__ = ["CleanDistance"]

_TINY = 1e-30  # the root has no gradient at 0


class CleanDistance(CleanDetector):
    """Mahalanobis distance from clean vectors, robust to a few that are not clean.

    Vectors are centred and scaled by median and median absolute deviation, and clipped at ``clip``
    deviations for the covariance, so that a few bad rows move neither centre nor scatter much; the
    covariance is shrunk towards the mean variance.

    Attacks move items along directions in which clean items vary too. Undoing all of the clean
    scatter, as a barely shrunk covariance does, weighs these down and the noise of the rest up:
    half shrunk found more in every model measured (docs/results/nccr.md).

    Args:
        clip: Robust deviations at which training rows are clipped for the covariance.
        shrinkage: Share of the covariance replaced by its mean variance, in (0, 1]; None estimates
            it (Ledoit–Wolf).
        contamination: Share of the training rows that ``predict`` calls outliers.

    Attributes:
        center_: (F,) median.
        scale_: (F,) robust standard deviation.
        precision_: (F, F) inverse covariance of the scaled vectors.
        offset_: ``score_samples`` below it is an outlier.
    """

    def __init__(
        self,
        *,
        clip: float = 4.0,
        shrinkage: float | None = 0.5,
        contamination: float = 0.05,
    ) -> None:
        """Keep the settings."""
        self.clip = clip
        self.shrinkage = shrinkage
        self.contamination = contamination

    def distance_of(self, rows: Tensor) -> Tensor:
        """``distance`` of (n, F) float64 rows, in the autograd graph: (n,)."""
        check_is_fitted(self)
        scaled = self._scaled(rows)
        squared = ((scaled @ torch.from_numpy(self.precision_).to(rows)) * scaled).sum(dim=1)
        return squared.clamp_min(_TINY).sqrt()

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the fitted arrays."""
        check_is_fitted(self)
        arrays = {"center": self.center_, "scale": self.scale_, "precision": self.precision_}
        return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], *, offset: float) -> CleanDistance:
        """Rebuild from what ``to_tensors`` gave and the fitted ``offset_``."""
        detector = cls()
        detector.center_ = tensors["center"].numpy()
        detector.scale_ = tensors["scale"].numpy()
        detector.precision_ = tensors["precision"].numpy()
        detector.offset_ = offset
        detector.n_features_in_ = len(detector.center_)
        return detector

    def _learn(self, scaled: Array) -> None:
        if self.shrinkage is None:
            covariance = LedoitWolf(assume_centered=True)
        else:
            covariance = ShrunkCovariance(assume_centered=True, shrinkage=self.shrinkage)
        self.precision_ = covariance.fit(np.clip(scaled, -self.clip, self.clip)).precision_
