"""From measurements to verdicts. The only place where a number becomes a word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from nip_audio.core.decision import EMBEDDING_DISTANCE, LOGIT_CHANGES
from nip_audio.core.noise import Noise
from nip_audio.detectors.consistency import consistency_scores
from nip_audio.errors import InputError
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.comparison import Accusation, Twin
from nip_audio.screening.measured import (
    FileFacts,
    MeasuredFile,
    Measurement,
    PictureFacts,
    PictureMeasurement,
)
from nip_audio.screening.records import (
    Finding,
    PictureRecord,
    Risk,
    ScreenRecord,
    SpeakerRecord,
    verdict_of,
)
from nip_audio.screening.words import RECORDINGS, Words

__all__ = ["Judge", "judge_accused", "judge_speaker", "judge_twins", "noise_words", "with_findings"]

DOMAIN_MARGIN = 1.5
"""Out of domain is farther than this many times the farthest calibration recording."""

LEAST_BANDWIDTH = 0.6
"""Of half the model's sample rate: audio that reaches less far went through a telephone or such.
Clean LibriSpeech reaches all of it, even 10 dB quieter 84 %, coded as MP3 of low bit rate 72 %;
through 8 kHz and back it reaches 53 %."""

_NAMED = 3

R = TypeVar("R", bound=ScreenRecord)

CLIPPED_SHARE, DROPPED_SHARE, DROPOUTS = 0.005, 0.01, 2

LEAST_SCALE = 0.6
"""Of the model's input, or of the calibration's smallest picture where that is smaller: what is
less was enlarged so much that the finest detail is missing. Clean ones of .6 and more are called
adversarial no more often than others, of .4 in a tenth of the cases (docs/images.md)."""

MOST_STRETCH = 2.0
"""Pictures that were scaled this much more in one direction than in the other are distorted."""


@dataclass(frozen=True)
class Judge:
    """A calibration at a stated rate of mistakes.

    Attributes:
        calibration: What clean audio looks like.
        false_positive_rate: Of the check for adversarial files, on clean ones like the
            calibration's. A recording is inconsistent if its folder's core would not verify it.
        false_discovery_rate: Flag instead, in a run over many files, so that of the flagged about
            this share is clean; None goes by each file alone.
    """

    calibration: Calibration
    false_positive_rate: float = 0.01
    false_discovery_rate: float | None = None

    def __post_init__(self) -> None:
        """Fail now, not at the first file, if the calibration cannot give this rate.

        Raises:
            CalibrationError: The text says how many files are needed.
            InputError: If a rate is not a share.
        """
        self.calibration.threshold(self.false_positive_rate)
        rate = self.false_discovery_rate
        if rate is not None and not 0 < rate < 1:
            raise InputError(
                f"false-discovery rate is {rate}, expected a share in (0, 1) such as 0.05"
            )

    def judge(self, file: MeasuredFile, *, q_value: float | None = None) -> ScreenRecord:
        """Judge one file by itself, and, where a q-value says so, among all of its run.

        Raises:
            InputError: If it is a recording, and the calibration of pictures.
        """
        match file.facts, file.measurement:
            case FileFacts() as facts, Measurement() as measured:
                return self._judge_recording(file, facts, measured, q_value)
            case PictureFacts() as facts, PictureMeasurement() as measured:
                return self._judge_picture(file, facts, measured, q_value)
        kind = PictureRecord if self.calibration.of_pictures else ScreenRecord
        return kind(file.id, file.speaker, "error", error=file.error)

    def _judge_recording(
        self, file: MeasuredFile, facts: FileFacts, measured: Measurement, q_value: float | None
    ) -> ScreenRecord:
        calibration = self.calibration
        if calibration.domain is None:
            raise InputError(
                f"{file.id!r} is a recording, and the calibration was made of pictures; pass one "
                "that was made of audio"
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
        facts: PictureFacts,
        measured: PictureMeasurement,
        q_value: float | None,
    ) -> PictureRecord:
        distance = self.calibration.distance(measured)
        record = PictureRecord(
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

    def judge_beside(
        self, records: Sequence[ScreenRecord], measured: Sequence[MeasuredFile]
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
        voices = [
            file.measurement.embedding
            for file in measured
            if isinstance(file.measurement, Measurement)
        ]
        if len(voices) != len(records) or len(voices) < 2:
            return list(records)  # pictures have no voice
        # no conformal threshold here: one at 1 % takes 99 recordings of repeated speakers, and one
        # mislabelled recording among them would set it
        threshold = self.calibration.verification_threshold
        judged = []
        for record, score in zip(records, consistency_scores(np.stack(voices)), strict=True):
            record = replace(record, consistency=float(score), consistency_threshold=threshold)
            if threshold is not None and score < threshold:
                why = (
                    "the two files of this speaker do not sound like one voice (cosine "
                    f"{score:.2f}, expected at least {threshold:.2f}); which one is wrong cannot "
                    "be told"
                    if len(records) == 2
                    else f"unlike the rest of its folder (mean cosine {score:.2f} to the "
                    f"{len(records) // 2 + 1} files that agree best, expected at least "
                    f"{threshold:.2f})"
                )
                record = with_findings(record, Finding.of("inconsistent", why))
            judged.append(record)
        return judged

    def _domain(self, record: ScreenRecord, facts: FileFacts) -> list[Finding]:
        found = []
        distance, limit = record.domain_distance or 0.0, record.domain_threshold or 0.0
        if distance > limit:
            why = (
                f"its spectrum is {distance:.1f} from the calibration's audio, farther than "
                f"{limit:.1f}: the detector is not calibrated for such audio"
            )
            found.append(Finding.of("out_of_domain", why))
        rate = self.calibration.sample_rate_hz or 0
        reach = min(facts.condition.bandwidth_hz, facts.sample_rate_hz / 2)
        if reach < LEAST_BANDWIDTH * rate / 2 or facts.sample_rate_hz < rate:
            how = (
                f"recorded at {facts.sample_rate_hz} Hz for a model of {rate} Hz"
                if facts.sample_rate_hz < rate
                else f"stored at {facts.sample_rate_hz} Hz, but it went through something narrower"
            )
            why = (
                f"{how}: nothing above {reach / 1000:g} kHz, which neither detector nor voice "
                "comparison is made for"
            )
            found.append(Finding("out_of_domain", why, "record at the model's rate"))
        return found

    def _size(self, facts: PictureFacts) -> list[Finding]:
        size, found = f"{facts.width} × {facts.height} pixels", []
        if facts.scale < LEAST_SCALE * min(1.0, self.calibration.scale):
            found.append(
                f"it has {size}, which were enlarged {1 / facts.scale:.1f} times for the model: "
                "the detector is not calibrated for pictures without detail"
            )
        if facts.stretch > MOST_STRETCH:
            found.append(
                f"it has {size}, which were distorted for the model: one direction was scaled "
                f"{facts.stretch:.1f} times as much as the other"
            )
        return [self._finding("out_of_domain", why) for why in found]

    def _finding(self, risk: Risk, why: str) -> Finding:
        return Finding.of(risk, why, self.calibration.words.remedies)

    def _adversarial(
        self, record: ScreenRecord, measured: Measurement | PictureMeasurement
    ) -> list[Finding]:
        distance, threshold = record.distance or 0.0, record.distance_threshold or 0.0
        by_run = self.false_discovery_rate
        if by_run is None and distance > threshold:
            limit = f"distance {distance:.2f} > {threshold:.2f}, p = {record.p_value:.3f}"
        elif by_run is not None and record.q_value is not None and record.q_value <= by_run:
            limit = f"q = {record.q_value:.2g} ≤ {by_run:g}, p = {record.p_value:.3f}"
        else:
            return []
        words = self.calibration.words
        noise, what, deviation = self.calibration.farthest(measured)
        what = (
            f"the {what}"
            if what in (*LOGIT_CHANGES, EMBEDDING_DISTANCE)
            else f"the change of layer {what}"
        )
        direction = "above" if deviation > 0 else "below"
        why = (
            f"reacts to noise unlike clean {words.clean} ({limit}); farthest off is {what} under "
            f"{noise_words(noise, words)}, {abs(deviation):.1f} robust deviations {direction} "
            "the usual"
        )
        return [self._finding("adversarial", why)]


def judge_twins(
    record: ScreenRecord, twins: Sequence[Twin], words: Words = RECORDINGS
) -> ScreenRecord:
    """Add that the same recording, or picture, lies under other speakers."""
    named = [f"{t.id!r}{_whose(t)} ({t.correlation:.2f})" for t in twins]
    some = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    why = f"{words.same} {', '.join(named[:_NAMED])}{some} ({words.same_by})"
    record = replace(record, duplicate_of=tuple(twin.id for twin in twins))
    return with_findings(record, Finding.of("duplicate", why, words.remedies))


def _whose(twin: Twin) -> str:
    """Say whose folder it lies in; in one without sub-folders nobody's."""
    return "" if twin.speaker is None else f" of {twin.speaker}"


def judge_accused(
    record: ScreenRecord, accusation: Accusation, words: Words = RECORDINGS
) -> ScreenRecord:
    """Add that a file looks as if it carried a backdoor's trigger."""
    finding = accusation.finding
    why = (
        f"the files that the model calls {finding.name} fall into two kinds, and this is of the "
        f"one that comes from {words.many} (probability {accusation.suspicion:.2f}; score "
        f"{finding.score:.1f}, alarm {finding.alarm:.1f}, unlike other names by "
        f"{finding.unlikeness:.1f}): so do files with a backdoor's trigger"
    )
    return with_findings(record, Finding.of("poisoned", why, words.remedies))


def judge_speaker(records: Sequence[ScreenRecord], words: Words = RECORDINGS) -> SpeakerRecord:
    """Put together what is known of one speaker, or folder, whose files' records these are."""
    readable = [record for record in records if record.verdict != "error"]
    every = tuple(finding for record in readable for finding in record.findings)
    findings = []
    if len(readable) == 1 and "lonely" in words.remedies:
        why = f"one of {len(records)} files could be judged: its voice was compared with nothing"
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
    """Return a record that says these things too, with the verdict that follows."""
    every = (*record.findings, *findings)
    return replace(record, findings=every, verdict=verdict_of(every))


def noise_words(noise: Noise, words: Words = RECORDINGS) -> str:
    """Say in words what a noise is."""
    where = words.raw if noise.level == "raw" else words.input
    kind = "white noise" if noise.family == "gaussian" else f"{noise.family} noise"
    return f"{kind} of {noise.scale:g} in the {where}"


def _damage(facts: FileFacts) -> list[Finding]:
    found = []
    if facts.clipped_share > CLIPPED_SHARE:
        why = (
            f"{facts.clipped_share:.1%} of its samples are at full scale: it was recorded too loud"
        )
        found.append(Finding.of("damaged", why))
    condition = facts.condition
    if condition.dropouts >= DROPOUTS or condition.dropped_share > DROPPED_SHARE:
        times = "once" if condition.dropouts == 1 else f"{condition.dropouts} times"
        why = (
            f"the signal breaks off to exact silence {times} ({condition.dropped_share:.1%} of "
            "it), as lost packets or a cut leave it"
        )
        found.append(Finding.of("damaged", why))
    return found
