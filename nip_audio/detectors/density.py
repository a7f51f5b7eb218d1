"""Clean-only detection by local density, without an assumption on the shape of the clean set.

Fitting uses no adversarial example. A density is two-sided by nature: a strong adversarial example
is *more* stable under noise than clean audio, and a vector is suspicious on either side if no clean
vectors lie near it.
"""

from __future__ import annotations

from nip_audio.detectors._clean_detector import CleanDetector
from nip_audio.detectors.fitted import FittedDensity

__all__ = ["CleanDensity"]


class CleanDensity(CleanDetector, FittedDensity):
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
