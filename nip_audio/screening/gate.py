"""Gate a purifier with a calibrated detector, so that it only changes suspicious inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from nip_audio.audio.io import samples_sha256
from nip_audio.core.adapter import Batch
from nip_audio.detectors.nccr_measure import NccrMeasure
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.measure import noise_generator

__all__ = ["CalibratedGate"]


class CalibratedGate:
    """Flags inputs that are farther from clean recordings than the calibration's threshold.

    The noise for an input depends on the seed and the input's samples alone, so that neither its
    place in a batch nor its padding matters.

    Args:
        pretrained: Model that the calibration was made for.
        calibration: Calibration whose noises and distance are used.
        false_positive_rate: Share of clean recordings that may be flagged, in (0, 1).
        seed: Seed of the noise generator.

    Raises:
        CalibrationError: If the calibration has too few files for this rate; the text says how many
            are needed.
    """

    def __init__(
        self,
        pretrained: PretrainedModel,
        calibration: Calibration,
        *,
        false_positive_rate: float = 0.01,
        seed: int = 0,
    ) -> None:
        """Take the threshold for the false-positive rate from the calibration."""
        self.calibration = calibration
        self.false_positive_rate = false_positive_rate
        self.seed = seed
        self.threshold = calibration.threshold(false_positive_rate)
        self._model = pretrained.model if calibration.names else pretrained.model.without_head()
        self._measure = NccrMeasure(calibration.config)

    @property
    def name(self) -> str:
        """Name of the detector, with its false-positive rate."""
        return f"NCCR at {self.false_positive_rate:.3g}"

    @property
    def seen(self) -> frozenset[str]:
        """SHA-256 of the content of each file that the calibration was fitted on."""
        return frozenset(self.calibration.seen)

    def settings(self) -> dict[str, Any]:
        """Return everything that the gate's decisions depend on."""
        return {
            "calibration": self.calibration.fingerprint,
            "false_positive_rate": self.false_positive_rate,
            "seed": self.seed,
        }

    def distances(self, raw: Batch) -> list[float]:
        """Return the distance of each raw input from clean recordings, ≥ 0."""
        rows = []
        for index in range(len(raw)):
            item = raw.item(index)
            content = samples_sha256(item.x.detach().cpu())
            generator = noise_generator(self.seed, content)
            rows.append(self._measure.measure(self._model, item, generator=generator))
        return [float(d) for d in self.calibration.distances_of(np.stack(rows))]

    def flags(self, raw: Batch) -> Tensor:
        """Return (B,) bool, True where a raw input is suspicious."""
        return torch.tensor([distance > self.threshold for distance in self.distances(raw)])
