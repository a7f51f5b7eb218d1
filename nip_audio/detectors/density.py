"""Clean-only detection by local density, without an assumption on the shape of the clean set.

Fitting uses no adversarial example. A density is two-sided by nature: a strong adversarial example
is *more* stable under noise than clean audio, and a vector is suspicious on either side if no clean
vectors lie near it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from nip_audio.detectors._clean_detector import Array, CleanDetector

__all__ = ["CleanDensity"]

_TINY = 1e-10


class CleanDensity(CleanDetector):
    """Local outlier factor (LOF) among clean vectors, scaled by median and absolute deviation.

    The factor is about 1 among the clean vectors, and larger where they are sparser than around
    their neighbours. It adapts to any shape of the clean set; but a cluster of more bad rows than
    ``neighbours`` would count as dense.

    Source: Breunig et al., "LOF" (SIGMOD 2000). The values equal those of scikit-learn's
    ``LocalOutlierFactor`` with ``novelty=True``, which has no gradient.

    Args:
        neighbours: Number of neighbouring rows from which the density is computed; at most all
            other rows.
        contamination: Share of the training rows that ``predict`` classifies as outliers.

    Attributes:
        center_: (F,) median of the clean vectors.
        scale_: (F,) robust standard deviation of the clean vectors.
        rows_: (n, F) scaled training rows.
        reach_: (n,) distance of each row to the farthest of its neighbours.
        density_: (n,) local reachability density of each row.
        offset_: Value of ``score_samples`` below which a row is an outlier.
    """

    def __init__(self, *, neighbours: int = 20, contamination: float = 0.05) -> None:
        self.neighbours = neighbours
        self.contamination = contamination

    def distance_of(self, rows: Tensor) -> Tensor:
        """Compute ``distance`` of (n, F) float64 rows in the autograd graph: (n,)."""
        check_is_fitted(self)
        known, reach, density = (
            torch.from_numpy(a).to(rows) for a in (self.rows_, self.reach_, self.density_)
        )
        near, who = _nearest(self._scaled(rows), known, self._count)
        own = 1 / (torch.maximum(near, reach[who]).mean(dim=1) + _TINY)
        return density[who].mean(dim=1) / own

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the scaled training rows, and their centre and scale."""
        check_is_fitted(self)
        arrays = {"rows": self.rows_, "center": self.center_, "scale": self.scale_}
        return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], *, offset: float, neighbours: int
    ) -> CleanDensity:
        """Rebuild a detector from the arrays of ``to_tensors``, the fitted offset and the setting.

        Older files hold the unscaled rows only, from which centre and scale are computed.
        """
        detector = cls(neighbours=neighbours)
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
        self.density_ = (1 / (torch.maximum(near, reach[who]).mean(dim=1) + _TINY)).numpy()


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
