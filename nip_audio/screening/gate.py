"""Gate a purifier with a calibrated detector, so that it only changes suspicious inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nip_audio.audio.channels import Channel
from nip_audio.audio.condition import condition_of
from nip_audio.audio.io import samples_sha256
from nip_audio.core.adapter import Batch
from nip_audio.core.finite import require_finite
from nip_audio.detectors.nccr_measure import NccrMeasure
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.measure import noise_generator
from nip_audio.screening.probes import Place
from nip_audio.screening.recordings import is_narrow
from nip_audio.screening.response import ResponseDetector
from nip_audio.screening.sounds import measure_sound

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
        calibration.threshold(false_positive_rate)  # refuses a rate that is too low
        self._pretrained = pretrained

    @property
    def name(self) -> str:
        """Name of the detector, with its false-positive rate."""
        responds = isinstance(self.calibration.detector, ResponseDetector)
        return f"{'response' if responds else 'NCCR'} at {self.false_positive_rate:.3g}"

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
        return [self._distance_and_limit(raw.item(i))[0] for i in range(len(raw))]

    def flags(self, raw: Batch) -> Tensor:
        """Return (B,) bool, True where a raw input is suspicious."""
        found = [self._distance_and_limit(raw.item(i)) for i in range(len(raw))]
        for distance, limit in found:
            require_finite(distance=distance, threshold=limit)
        return torch.tensor([distance > limit for distance, limit in found])

    def _distance_and_limit(self, item: Batch) -> tuple[float, float]:
        """Return the distance of one raw input, and the threshold for inputs like it."""
        detector, model = self.calibration.detector, self._pretrained.model
        content = samples_sha256(item.x.detach().cpu())
        generator = noise_generator(self.seed, content)
        rate = self.false_positive_rate
        if isinstance(detector, ResponseDetector):
            sample_rate_hz = int(self._pretrained.card.data["sample_rate_hz"])
            samples = item.x[0].detach()
            signal = Channel(0, samples, sample_rate_hz)
            sound = measure_sound(model, detector.probe, [signal], generator=generator)
            bandwidth_hz = condition_of(samples, sample_rate_hz).bandwidth_hz
            place = Place(is_narrow(bandwidth_hz, sample_rate_hz), len(sound.rows))
            return float(detector.distances_of(sound.rows).max()), detector.threshold(rate, place)
        measured = model if detector.probe.names else model.without_head()
        measure = NccrMeasure(detector.probe.config)
        row = measure.measure(measured, item, generator=generator)
        return float(detector.distances_of([row])[0]), detector.threshold(rate, Place())
