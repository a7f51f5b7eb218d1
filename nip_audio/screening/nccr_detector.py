"""Judge files by how far their response to noise is from that of clean ones (clean-only NCCR)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from nip_audio.core.decision import evidence_names
from nip_audio.core.noise import Noise
from nip_audio.detectors.conformal import (
    FILES_FOR_TAIL,
    TailFit,
    conformal_p_value,
    conformal_threshold,
    fit_tail,
)
from nip_audio.detectors.fitted import FittedDensity, FittedDistance, FittedRates
from nip_audio.screening.measured import Measured
from nip_audio.screening.probes import NccrProbe, Place

__all__ = ["NccrDetector"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class NccrDetector:
    """Distance of a file's response to noise from clean ones; it has seen no attack.

    Attributes:
        probe: What is measured.
        rates: Transform that corrects the evidence for the length of a file.
        estimator: Measures the distance of a file's evidence from that of clean files.
        distances: (n,) sorted out-of-fold distances of the clean files and of their noisy copies.
    """

    probe: NccrProbe
    rates: FittedRates
    estimator: FittedDistance | FittedDensity
    distances: Array

    @property
    def files(self) -> int:
        """Number of clean files, which limits the false-positive rate."""
        return len(self.distances)

    def threshold(self, false_positive_rate: float, place: Place) -> float:  # noqa: ARG002
        """Return the distance above which a file is flagged.

        Raises:
            CalibrationError: If there are too few clean files for this rate.
        """
        return conformal_threshold(self.distances, false_positive_rate)

    def distance(self, measured: Measured) -> float:
        """Return the distance of a file from clean ones, ≥ 0."""
        return float(self.distances_of([measured.evidence])[0])

    def distances_of(self, evidence: ArrayLike) -> Array:
        """Return the distance of each row of (n, F + 1) evidence from clean files, (n,)."""
        return self.estimator.distance(self.rates.transform(evidence))

    def farthest(self, measured: Measured) -> tuple[Noise, str, float]:
        """Return the entry of the evidence that deviates most from clean files.

        Returns:
            The noise, the name of what it changes (a layer or a change of the decision), and its
            signed deviation from the clean median in robust standard deviations.
        """
        config, names = self.probe.config, self.probe.names
        deviations = self.explain(measured)
        worst = int(np.argmax(np.abs(deviations)))
        noise, what = evidence_names(config, head=names)[worst].split(" | ")
        (found,) = (n for n in config.noises if n.name == noise)
        return found, what, float(deviations[worst])

    def explain(self, measured: Measured) -> Array:
        """Return the deviation of each entry of the evidence, in robust standard deviations."""
        return self.estimator.explain(self.rates.transform([measured.evidence])[0])

    def p_value(self, distance: float, place: Place) -> float:  # noqa: ARG002
        """Return the conformal p-value of a distance, ≥ 1 / (n + 1).

        It is valid whatever the distribution of the distances is.
        """
        return conformal_p_value(self.distances, distance)

    def tail_p_value(self, distance: float, place: Place) -> float:
        """Return a p-value that can fall below 1 / (n + 1), for comparing many files.

        Beyond the largest clean distances it comes from a fitted tail and is an extrapolation. With
        fewer than 200 clean files no tail is fitted, and this is the conformal p-value.
        """
        if self._tail is None or distance <= self._tail.limit:
            return self.p_value(distance, place)
        return self._tail.p_value(distance)

    @cached_property
    def _tail(self) -> TailFit | None:
        return fit_tail(self.distances) if len(self.distances) >= FILES_FOR_TAIL else None

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors of a calibration file."""
        return {
            "distances": torch.from_numpy(self.distances),
            **_named("rates", self.rates.to_tensors()),
            **_named("detector", self.estimator.to_tensors()),
        }


def _named(part: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{part}.{name}": tensor for name, tensor in tensors.items()}
