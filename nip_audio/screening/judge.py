"""From measurements to verdicts. The only place where a number becomes a word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nip_audio.audio.io import Audio
from nip_audio.audio.manifest import Recording
from nip_audio.detectors.consistency import consistency_scores
from nip_audio.errors import InputError
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.measure import Measurement
from nip_audio.screening.records import ScreenRecord, file_facts

__all__ = ["Judge"]


@dataclass(frozen=True)
class Judge:
    """A calibration at a stated false-positive rate.

    Attributes:
        calibration: What clean audio looks like.
        false_positive_rate: Of the check for adversarial audio, on clean audio like the
            calibration's. A file is inconsistent if its folder's core would not verify it.
    """

    calibration: Calibration
    false_positive_rate: float = 0.01

    def __post_init__(self) -> None:
        """Fail now, not at the first file, if the calibration cannot give this rate.

        Raises:
            CalibrationError: The text says how many files are needed.
        """
        self.calibration.threshold(self.false_positive_rate)

    def judge(self, recording: Recording, audio: Audio, measured: Measurement) -> ScreenRecord:
        """Judge one file by itself."""
        calibration = self.calibration
        threshold = calibration.threshold(self.false_positive_rate)
        distance = calibration.distance(measured)
        domain_threshold = float(calibration.domain_distances[-1]) * DOMAIN_MARGIN
        domain_distance = float(calibration.domain.distance([measured.spectrum])[0])
        p_value = calibration.p_value(distance)
        reasons = []
        outside = domain_distance > domain_threshold
        if outside:
            reasons.append(
                f"its spectrum is {domain_distance:.1f} from the calibration's audio, farther than "
                f"{domain_threshold:.1f}: the detector is not calibrated for such audio"
            )
        if audio.source_rate_hz < audio.sample_rate_hz:
            outside = True
            reasons.append(
                f"recorded at {audio.source_rate_hz} Hz for a model of {audio.sample_rate_hz} Hz: "
                f"nothing above {audio.source_rate_hz / 2000:g} kHz, which neither detector nor "
                "voice comparison is made for; record at the model's rate"
            )
        adversarial = distance > threshold
        if adversarial:
            reasons.append(self._explain(measured, distance, threshold, p_value))
        return ScreenRecord(
            id=recording.id,
            speaker=recording.speaker,
            verdict="out_of_domain" if outside else "adversarial" if adversarial else "clean",
            reasons=tuple(reasons),
            distance=distance,
            distance_threshold=threshold,
            p_value=p_value,
            domain_distance=domain_distance,
            domain_threshold=domain_threshold,
            **file_facts(audio),
        )

    def judge_folder(
        self, records: Sequence[ScreenRecord], measured: Sequence[Measurement]
    ) -> list[ScreenRecord]:
        """Add how each file of one speaker sounds beside the others.

        Args:
            records: Of the speaker's readable files.
            measured: Theirs, in the same order.

        Raises:
            InputError: If the two differ in number.
        """
        if len(records) != len(measured):
            raise InputError(f"got {len(records)} records for {len(measured)} measurements")
        if len(records) < 2:
            return list(records)
        # no conformal threshold here: one at 1 % takes 99 recordings of repeated speakers, and one
        # mislabelled recording among them would set it
        threshold = self.calibration.verification_threshold
        scores = consistency_scores(np.stack([m.embedding for m in measured]))
        judged = []
        for record, score in zip(records, scores.tolist(), strict=True):
            record = replace(record, consistency=score, consistency_threshold=threshold)
            if threshold is not None and score < threshold:
                why = (
                    "the two files of this folder do not sound like one speaker (cosine "
                    f"{score:.2f}, expected at least {threshold:.2f}); which one is wrong cannot "
                    "be told"
                    if len(records) == 2
                    else f"unlike the rest of its folder (mean cosine {score:.2f} to the "
                    f"{len(records) // 2 + 1} files that agree best, expected at least "
                    f"{threshold:.2f})"
                )
                verdict = "inconsistent" if record.verdict == "clean" else record.verdict
                record = replace(record, verdict=verdict, reasons=(*record.reasons, why))
            judged.append(record)
        return judged

    def _explain(
        self, measured: Measurement, distance: float, threshold: float, p_value: float
    ) -> str:
        config = self.calibration.config
        deviations = self.calibration.deviations(measured)
        worst = int(np.argmax(np.abs(deviations)))
        direction = "more" if deviations[worst] > 0 else "less"
        noise = config.noises[worst // len(config.layers)].name
        layer = config.layers[worst % len(config.layers)]
        return (
            f"reacts to noise unlike clean audio (distance {distance:.1f} > {threshold:.1f}, p = "
            f"{p_value:.3f}); most of all layer {layer} changes {direction} than usual under "
            f"{noise} ({deviations[worst]:+.1f} robust deviations)"
        )


DOMAIN_MARGIN = 1.5
"""Out of domain is farther than this many times the farthest calibration recording."""
