"""A calibrated detector as the gate of a purifier."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nip_audio.core.adapter import Batch
from nip_audio.detectors.nccr_measure import NccrMeasure
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.measure import noise_generator

__all__ = ["CalibratedGate"]


class CalibratedGate:
    """Flags what is farther from clean recordings than a stated share of them.

    The noise that an item is looked at under comes from a seed and the item's own samples, so that
    neither its place in a batch nor its padding matters.

    Args:
        pretrained: The model that the calibration was made for.
        calibration: Its noises and its distance.
        false_positive_rate: On clean recordings like the calibration's.
        seed: Of the noise.

    Raises:
        CalibrationError: If the calibration cannot give this rate; the text says how many files are
            needed.
    """

    def __init__(
        self,
        pretrained: PretrainedModel,
        calibration: Calibration,
        *,
        false_positive_rate: float = 0.01,
        seed: int = 0,
    ) -> None:
        """See the class."""
        self.calibration = calibration
        self.false_positive_rate = false_positive_rate
        self.seed = seed
        self.threshold = calibration.threshold(false_positive_rate)
        self._model = pretrained.model if calibration.names else pretrained.model.without_head()
        self._measure = NccrMeasure(calibration.config)

    @property
    def name(self) -> str:
        """The detector and its rate."""
        return f"NCCR at {self.false_positive_rate:.3g}"

    @property
    def seen(self) -> frozenset[str]:
        """What the calibration was fitted on."""
        return frozenset(self.calibration.seen)

    def settings(self) -> dict[str, Any]:
        """Return what the answers depend on."""
        return {
            "calibration": self.calibration.fingerprint,
            "false_positive_rate": self.false_positive_rate,
            "seed": self.seed,
        }

    def distances(self, raw: Batch) -> list[float]:
        """Return how far each raw item is from clean ones."""
        rows = []
        for index in range(len(raw)):
            item = raw.item(index)
            samples = np.ascontiguousarray(item.x.detach().cpu().numpy())
            generator = noise_generator(self.seed, hashlib.sha256(samples.tobytes()).hexdigest())
            rows.append(self._measure.measure(self._model, item, generator=generator))
        return [float(d) for d in self.calibration.distances_of(np.stack(rows))]

    def flags(self, raw: Batch) -> Tensor:
        """Tell which raw items are suspicious: (B,) bool."""
        return torch.tensor([distance > self.threshold for distance in self.distances(raw)])
