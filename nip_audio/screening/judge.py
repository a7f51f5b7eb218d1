"""Turn measurements into verdicts, each with its reasons in words.

Every verdict of a screening is made here. ``gate`` compares the same distance with the same
threshold, but only to decide which inputs a purifier changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from nip_audio.core.decision import DECISION, TURN
from nip_audio.core.noise import Noise
from nip_audio.detectors.consistency import consistency_scores
from nip_audio.errors import InputError
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.comparison import DuplicateFile, TriggerSuspicion
from nip_audio.screening.measured import (
    FileFacts,
    ImageFacts,
    ImageMeasurement,
    MeasuredFile,
    Measurement,
)
from nip_audio.screening.records import (
    Finding,
    ImageRecord,
    Risk,
    ScreenRecord,
    SpeakerRecord,
    verdict_of,
)
from nip_audio.screening.words import RECORDINGS, Words

__all__ = [
    "Judge",
    "add_duplicates",
    "add_trigger_suspicion",
    "change_words",
    "judge_speaker",
    "noise_words",
    "with_findings",
]

DOMAIN_MARGIN = 1.5
"""A recording is out of domain if its spectrum is farther from clean ones than this multiple of the
farthest calibration recording."""

LEAST_BANDWIDTH = 0.6
"""Smallest bandwidth, as a share of half the model's sample rate; audio below it went through a
telephone or another narrow channel. Clean LibriSpeech reaches 100 %, 84 % even if it is 10 dB
quieter, and 72 % as MP3 of low bit rate; resampled to 8 kHz and back it reaches 53 %."""

_NAMED = 3

R = TypeVar("R", bound=ScreenRecord)

CLIPPED_SHARE, DROPPED_SHARE, DROPOUTS = 0.005, 0.01, 2

LEAST_SCALE = 0.6
"""Smallest size of an image as a share of the model's input, or of the smallest calibration image
if that is smaller. A smaller image was enlarged so much that fine detail is missing. Clean images
of .6 and more are called adversarial no more often than others, those of .4 in a tenth of the cases
(docs/results/images.md)."""

MOST_STRETCH = 2.0
"""An image that was scaled by a larger ratio than this in one direction than in the other is
distorted."""

_CHANGES = {
    DECISION[0]: "logit drop of the predicted label",
    DECISION[1]: "logit rise of the runner-up label",
    DECISION[2]: "remaining margin of the predicted label",
    TURN: "cosine distance between embeddings",
}


@dataclass(frozen=True)
class Judge:
    """Judges files with one calibration at a stated false-positive rate.

    Attributes:
        calibration: Reference distribution of clean files.
        false_positive_rate: Share of clean files, like those of the calibration, that the check for
            adversarial files may flag. The other checks have thresholds of their own.
        false_discovery_rate: Share of clean files among those flagged as adversarial in a run over
            many files, about. If given, it replaces the false-positive rate; None judges each file
            by itself.
    """

    calibration: Calibration
    false_positive_rate: float = 0.01
    false_discovery_rate: float | None = None

    def __post_init__(self) -> None:
        """Fail now, not at the first file, if the calibration cannot give this rate.

        Raises:
            CalibrationError: If it has too few files; the text says how many are needed.
            InputError: If a rate is not in (0, 1).
        """
        self.calibration.threshold(self.false_positive_rate)
        rate = self.false_discovery_rate
        if rate is not None and not 0 < rate < 1:
            raise InputError(
                f"false-discovery rate is {rate}, expected a share in (0, 1); pass one such as 0.05"
            )

    def judge(self, file: MeasuredFile, *, q_value: float | None = None) -> ScreenRecord:
        """Judge one file by itself.

        Args:
            file: Measured file, or one that could not be read.
            q_value: q-value of the file among all files of its run, used with a false-discovery
                rate; None if the file is not part of a run.

        Raises:
            InputError: If the file is a recording and the calibration was made of images.
        """
        match file.facts, file.measurement:
            case FileFacts() as facts, Measurement() as measured:
                return self._judge_recording(file, facts, measured, q_value)
            case ImageFacts() as facts, ImageMeasurement() as measured:
                return self._judge_picture(file, facts, measured, q_value)
        kind = ImageRecord if self.calibration.of_images else ScreenRecord
        return kind(file.id, file.speaker, "error", error=file.error)

    def _judge_recording(
        self, file: MeasuredFile, facts: FileFacts, measured: Measurement, q_value: float | None
    ) -> ScreenRecord:
        calibration = self.calibration
        if calibration.domain is None:
            raise InputError(
                f"{file.id!r} is a recording, but the calibration was made of images; pass a "
                "calibration that was made of audio"
            )
        distance = calibration.distance(measured)
        record = ScreenRecord(
            file.id,
            file.speaker,
            "clean",
            distance=distance,
            distance_threshold=calibration.threshold(self.false_positive_rate),
            p_value=calibration.p_value(distance),
            q_value=q_value,
            domain_distance=float(calibration.domain.distance([measured.spectrum])[0]),
            domain_threshold=float(calibration.domain_distances[-1]) * DOMAIN_MARGIN,
            duration_s=facts.duration_s,
            sample_rate_hz=facts.sample_rate_hz,
            channels=facts.channels,
            encoding=facts.encoding,
            bandwidth_hz=facts.condition.bandwidth_hz,
            changes=facts.changes,
            sha256=facts.sha256,
        )
        return with_findings(
            record,
            *self._domain(record, facts),
            *self._adversarial(record, measured),
            *_damage(facts),
        )

    def _judge_picture(
        self,
        file: MeasuredFile,
        facts: ImageFacts,
        measured: ImageMeasurement,
        q_value: float | None,
    ) -> ImageRecord:
        distance = self.calibration.distance(measured)
        record = ImageRecord(
            file.id,
            file.speaker,
            "clean",
            distance=distance,
            distance_threshold=self.calibration.threshold(self.false_positive_rate),
            p_value=self.calibration.p_value(distance),
            q_value=q_value,
            encoding=facts.encoding,
            changes=facts.changes,
            sha256=facts.sha256,
            named=measured.named,
            height=facts.height,
            width=facts.width,
        )
        return with_findings(record, *self._size(facts), *self._adversarial(record, measured))

    def compare_voices(
        self, records: Sequence[ScreenRecord], measured: Sequence[MeasuredFile]
    ) -> list[ScreenRecord]:
        """Compare the voices of one speaker's files and add what does not fit.

        Args:
            records: Records of the speaker's readable files.
            measured: Measurements of the same files, in the same order.

        Returns:
            The records, with their consistency and, where it is too low, a finding.

        Raises:
            InputError: If there are not as many measurements as records.
        """
        if len(records) != len(measured):
            raise InputError(
                f"got {len(records)} records and {len(measured)} measurements, expected as many of "
                "each; pass both for the same files"
            )
        voices = [
            file.measurement.embedding
            for file in measured
            if isinstance(file.measurement, Measurement)
        ]
        if len(voices) != len(records) or len(voices) < 2:
            return list(records)  # images have no voice
        # no conformal threshold here: at 1 % it needs 99 recordings of repeated speakers, and a
        # single mislabelled one among them would determine it
        threshold = self.calibration.verification_threshold
        judged = []
        for record, score in zip(records, consistency_scores(np.stack(voices)), strict=True):
            record = replace(record, consistency=float(score), consistency_threshold=threshold)
            if threshold is not None and score < threshold:
                why = (
                    "the two files of this speaker do not sound like the same voice (cosine "
                    f"similarity {score:.2f}, expected at least {threshold:.2f}); with only two "
                    "files it is not possible to tell which one is wrong"
                    if len(records) == 2
                    else "its voice does not match the speaker's other files (mean cosine "
                    f"similarity {score:.2f} to the {len(records) // 2 + 1} files that agree best, "
                    f"expected at least {threshold:.2f}), so it may be another person's recording"
                )
                record = with_findings(record, Finding.of("inconsistent", why))
            judged.append(record)
        return judged

    def _domain(self, record: ScreenRecord, facts: FileFacts) -> list[Finding]:
        found = []
        distance, limit = record.domain_distance or 0.0, record.domain_threshold or 0.0
        if distance > limit:
            why = (
                "its spectrum is unlike that of the audio that the detector was calibrated on "
                f"(distance {distance:.1f}, limit {limit:.1f}), so the detector's result means "
                "little for this file"
            )
            found.append(Finding.of("out_of_domain", why))
        rate = self.calibration.sample_rate_hz or 0
        reach = min(facts.condition.bandwidth_hz, facts.sample_rate_hz / 2)
        if reach < LEAST_BANDWIDTH * rate / 2 or facts.sample_rate_hz < rate:
            how = (
                f"it is sampled at {facts.sample_rate_hz} Hz and the model expects {rate} Hz"
                if facts.sample_rate_hz < rate
                else f"it is sampled at {facts.sample_rate_hz} Hz, but went through a narrower "
                "channel such as a telephone"
            )
            why = (
                f"{how}, so it holds nothing above {reach / 1000:g} kHz; neither the detector nor "
                "the voice comparison is made for such audio"
            )
            remedy = f"record it again at {rate} Hz or more, and not over a telephone"
            found.append(Finding("out_of_domain", why, remedy))
        return found

    def _size(self, facts: ImageFacts) -> list[Finding]:
        size, found = f"{facts.width} × {facts.height} pixels", []
        if facts.scale < LEAST_SCALE * min(1.0, self.calibration.scale):
            found.append(
                f"it has only {size} and was enlarged {1 / facts.scale:.1f} times for the model, "
                "so fine detail is missing; the detector is not calibrated for such images"
            )
        if facts.stretch > MOST_STRETCH:
            found.append(
                f"it has {size} and was distorted for the model: one direction was scaled "
                f"{facts.stretch:.1f} times as much as the other, and the detector is not "
                "calibrated for such images"
            )
        return [self._finding("out_of_domain", why) for why in found]

    def _finding(self, risk: Risk, why: str) -> Finding:
        return Finding.of(risk, why, self.calibration.words.remedies)

    def _adversarial(
        self, record: ScreenRecord, measured: Measurement | ImageMeasurement
    ) -> list[Finding]:
        distance, threshold = record.distance or 0.0, record.distance_threshold or 0.0
        by_run = self.false_discovery_rate
        if by_run is None and distance > threshold:
            limit = f"distance {distance:.2f}, threshold {threshold:.2f}, p = {record.p_value:.3f}"
        elif by_run is not None and record.q_value is not None and record.q_value <= by_run:
            limit = f"q = {record.q_value:.2g}, limit {by_run:g}, p = {record.p_value:.3f}"
        else:
            return []
        words = self.calibration.words
        noise, what, deviation = self.calibration.farthest(measured)
        direction = "above" if deviation > 0 else "below"
        why = (
            f"its response to added noise is unlike that of clean {words.clean} ({limit}); "
            "adversarial attacks cause this, but a noisy or otherwise unusual file can as well. "
            f"The largest deviation is the {change_words(what)} under {noise_words(noise, words)}: "
            f"{abs(deviation):.1f} robust standard deviations {direction} the clean median"
        )
        return [self._finding("adversarial", why)]


def add_duplicates(
    record: ScreenRecord, duplicates: Sequence[DuplicateFile], words: Words = RECORDINGS
) -> ScreenRecord:
    """Add the finding that the same recording, or image, is filed elsewhere as well."""
    shown = duplicates[:_NAMED]
    files = ", ".join(f"{t.id!r}{_whose(t, words)}" for t in shown)
    some = f" and {len(duplicates) - _NAMED} more" if len(duplicates) > _NAMED else ""
    correlations = ", ".join(f"{t.correlation:.2f}" for t in shown)
    why = f"it is {words.same} {files}{some} ({words.same_by}: {correlations})"
    record = replace(record, duplicate_of=tuple(duplicate.id for duplicate in duplicates))
    return with_findings(record, Finding.of("duplicate", why, words.remedies))


def _whose(duplicate: DuplicateFile, words: Words) -> str:
    """Name the speaker or folder of a duplicate, if it has one."""
    return "" if duplicate.speaker is None else f" of {words.group} {duplicate.speaker}"


def add_trigger_suspicion(
    record: ScreenRecord, trigger: TriggerSuspicion, words: Words = RECORDINGS
) -> ScreenRecord:
    """Add the finding that a file looks as if it carried a backdoor trigger."""
    finding = trigger.finding
    why = (
        f"the files for which the model predicts {finding.name} split into two groups, and this "
        f"file is in the one that mixes {words.many} (probability {trigger.suspicion:.2f}; "
        f"score {finding.score:.1f} from alarm {finding.alarm:.1f} and unlikeness "
        f"{finding.unlikeness:.1f}); files with a backdoor trigger form such a group"
    )
    return with_findings(record, Finding.of("poisoned", why, words.remedies))


def judge_speaker(records: Sequence[ScreenRecord], words: Words = RECORDINGS) -> SpeakerRecord:
    """Summarise the records of all files of one speaker, or of one folder of images."""
    readable = [record for record in records if record.verdict != "error"]
    every = tuple(finding for record in readable for finding in record.findings)
    findings = []
    if len(readable) == 1 and "lonely" in words.remedies:
        why = (
            "this speaker has a single recording that could be judged (of "
            f"{len(records)} in all), so its voice could not be compared with another one"
        )
        findings.append(Finding.of("lonely", why))
    return SpeakerRecord(
        speaker=records[0].speaker or "",
        verdict=verdict_of(every) if readable else "error",
        files=len(records),
        flagged=sum(record.flagged for record in records),
        failed=len(records) - len(readable),
        findings=tuple(findings),
    )


def with_findings(record: R, *findings: Finding) -> R:
    """Return the record with these findings added and the verdict that follows from all."""
    every = (*record.findings, *findings)
    return replace(record, findings=every, verdict=verdict_of(every))


def noise_words(noise: Noise, words: Words = RECORDINGS) -> str:
    """Describe a noise in words, such as ``white noise of RMS 0.008 in the waveform``."""
    where = words.raw if noise.level == "raw" else words.input
    if noise.family == "gaussian":
        return f"white noise of RMS {noise.scale:g} in the {where}"
    if noise.family == "mask":
        return f"masking of {100 * noise.scale:g} % of the {where}"
    return f"{noise.family} noise of {noise.scale:g} in the {where}"


def change_words(name: str) -> str:
    """Describe an entry of the evidence, which is a layer or a change of the decision, in words."""
    return _CHANGES.get(name, f"relative change of layer {name}")


def _damage(facts: FileFacts) -> list[Finding]:
    found = []
    if facts.clipped_share > CLIPPED_SHARE:
        why = (
            f"{facts.clipped_share:.1%} of its samples are at full scale, so it was recorded too "
            "loud and is clipped"
        )
        found.append(Finding.of("damaged", why))
    condition = facts.condition
    if condition.dropouts >= DROPOUTS or condition.dropped_share > DROPPED_SHARE:
        times = "once" if condition.dropouts == 1 else f"{condition.dropouts} times"
        why = (
            f"the signal drops to exact silence {times} ({condition.dropped_share:.1%} of its "
            "length), as lost packets or a cut leave it"
        )
        found.append(Finding.of("damaged", why))
    return found
