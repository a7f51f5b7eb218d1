"""Clean-only detection without a shape: how thin clean vectors lie where a vector is.

No adversarial example is ever seen. It is two-sided by nature: a strong adversarial example is
*more* stable under noise than clean audio, and where no clean vector lies is suspicious whichever
side it is on.
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

    def distance_of(self, rows: Tensor) -> Tensor:
        """``distance`` of (n, F) float64 rows, in the autograd graph: (n,)."""
        check_is_fitted(self)
        known, reach, density = (
            torch.from_numpy(a).to(rows) for a in (self.rows_, self.reach_, self.density_)
        )
        near, who = _nearest(self._scaled(rows), known, self._count)
        own = 1 / (torch.maximum(near, reach[who]).mean(dim=1) + _TINY)
        return density[who].mean(dim=1) / own

    def to_tensors(self) -> dict[str, Tensor]:
        """Return what it was fitted on."""
        check_is_fitted(self)
        arrays = {"rows": self.rows_, "center": self.center_, "scale": self.scale_}
        return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], *, offset: float, neighbours: int
    ) -> CleanDensity:
        """Rebuild from what ``to_tensors`` gave, the fitted ``offset_`` and the setting.

        It once gave the rows unscaled, and nothing else: from them the rest follows.
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
