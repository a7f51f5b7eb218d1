"""Turn measurements into verdicts, each with its reasons in words.

Besides this module only ``recordings`` and ``images`` compare a measurement with a threshold, and
``gate``, to decide which inputs a purifier changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nip_audio.core.decision import EMBEDDING_DISTANCE, LOGIT_CHANGES
from nip_audio.core.finite import require_finite
from nip_audio.core.noise import Noise
from nip_audio.detectors.conformal import files_needed
from nip_audio.errors import InputError
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.comparison import DuplicateFile, TriggerSuspicion
from nip_audio.screening.kind import Kind, Words
from nip_audio.screening.measured import Measured, MeasuredFile
from nip_audio.screening.modalities import KINDS
from nip_audio.screening.nccr_detector import NccrDetector
from nip_audio.screening.records import (
    FLAGGED,
    NOT_JUDGED,
    Finding,
    ScreenRecord,
    SpeakerRecord,
)
from nip_audio.screening.response import ResponseDetector

__all__ = [
    "DEFAULT_FPR",
    "Judge",
    "add_duplicates",
    "add_trigger_suspicion",
    "change_words",
    "judge_speaker",
    "noise_words",
]

DEFAULT_FPR = 0.01
"""False-positive rate where none is asked for and the calibration allows it."""

_NAMED = 3

_CHANGES = {
    LOGIT_CHANGES[0]: "logit drop of the predicted label",
    LOGIT_CHANGES[1]: "logit rise of the runner-up label",
    LOGIT_CHANGES[2]: "remaining margin of the predicted label",
    EMBEDDING_DISTANCE: "cosine distance between embeddings",
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

    @staticmethod
    def at(
        calibration: Calibration,
        false_positive_rate: float | None = None,
        false_discovery_rate: float | None = None,
    ) -> Judge:
        """Return a judge at a rate, or at 1 % or the lowest rate that the calibration allows.

        Args:
            calibration: Reference distribution of clean files.
            false_positive_rate: Rate; None takes ``DEFAULT_FPR`` if the calibration allows it, else
                the lowest that it allows, which ``note`` says.
            false_discovery_rate: Share of false alarms among the flagged files of a run, as
                ``Judge`` takes it; None flags by the false-positive rate.

        Raises:
            CalibrationError: If the calibration has too few files for a rate that was given.
            InputError: If a rate is not in (0, 1).
        """
        allowed = max(DEFAULT_FPR, calibration.lowest_rate)
        rate = allowed if false_positive_rate is None else false_positive_rate
        return Judge(calibration, rate, false_discovery_rate)

    @property
    def note(self) -> str | None:
        """What the calibration does not allow, in words; None if it allows 1 %."""
        lowest = self.calibration.lowest_rate
        if lowest <= DEFAULT_FPR or self.false_positive_rate > lowest:
            return None
        return (
            f"the calibration has {self.calibration.files} files, which allow no false-positive "
            f"rate below {lowest:.2%}, so this rate is used: about one clean file in "
            f"{round(1 / lowest)} is flagged. Calibrate on {files_needed(DEFAULT_FPR)} files or "
            f"more for {DEFAULT_FPR:.0%}"
        )

    @property
    def kind(self) -> type[Kind]:
        """Modality of the files."""
        return KINDS[self.calibration.tag]

    def judge(self, file: MeasuredFile, *, q_value: float | None = None) -> ScreenRecord:
        """Judge one file by itself.

        Args:
            file: Measured file, or one that could not be read.
            q_value: q-value of the file among all files of its run, used with a false-discovery
                rate; None if the file is not part of a run.

        Raises:
            InputError: If the calibration was made of files of another modality.
        """
        calibration, kind = self.calibration, self.kind
        facts, measured = file.facts, file.measurement
        if facts is None or measured is None:
            return ScreenRecord(
                file.id, file.speaker, "error", error=file.error, details=kind.details()
            )
        if facts.tag != calibration.tag:
            given = KINDS[facts.tag].modality
            raise InputError(
                f"{file.id!r} is one of the {given.plural} of a run, but the calibration was made "
                f"of {kind.modality.plural}; pass a calibration that was made of {given.plural}"
            )
        detector, place = calibration.detector, kind.place(facts, measured, calibration)
        distance = detector.distance(measured)
        threshold = detector.threshold(self.false_positive_rate, place)
        require_finite(distance=distance, threshold=threshold, q_value=q_value)
        details = kind.details_of(facts, measured, calibration)
        record = ScreenRecord(
            file.id,
            file.speaker,
            "clean",
            distance=distance,
            distance_threshold=threshold,
            p_value=detector.p_value(distance, place),
            q_value=q_value,
            encoding=facts.encoding,
            changes=facts.changes,
            sha256=facts.sha256,
            details=details,
        )
        return record.with_findings(
            *kind.outside(details, facts, calibration),
            *(self._adversarial(record, measured) if kind.hears(facts) else ()),
            *kind.damage(details, facts, calibration),
        )

    def compare_files(
        self, records: Sequence[ScreenRecord], measured: Sequence[MeasuredFile]
    ) -> list[ScreenRecord]:
        """Compare the files of one speaker, that is their voices, and add what does not fit.

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
        return self.kind.compare(records, [file.measurement for file in measured], self.calibration)

    def _adversarial(self, record: ScreenRecord, measured: Measured) -> list[Finding]:
        distance, threshold = record.distance or 0.0, record.distance_threshold or 0.0
        by_run, p = self.false_discovery_rate, _p_words(record.p_value)
        if by_run is None and distance > threshold:
            limit = f"distance {distance:.2f}, threshold {threshold:.2f}, {p}"
        elif by_run is not None and record.q_value is not None and record.q_value <= by_run:
            limit = f"q = {record.q_value:.2g}, limit {by_run:g}, {p}"
        else:
            return []
        words = self.kind.words
        detector = self.calibration.detector
        if isinstance(detector, ResponseDetector):
            why = _response_words(detector, record, measured, limit)
        else:
            why = _noise_response_words(detector, measured, limit, words)
        return [Finding.of("adversarial", why, words.remedies)]


def _p_words(p_value: float | None) -> str:
    p = 1.0 if p_value is None else p_value
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def _response_words(
    detector: ResponseDetector, record: ScreenRecord, measured: Measured, limit: str
) -> str:
    """Say in words why the response of a purifier shows an attack."""
    where = _window_words(measured, detector.worst(measured))
    resembles = getattr(record.details, "resembles", None)
    return (
        f"the purifier changes it{where} as it changes attacked recordings, and not as it changes "
        f"clean, noisy or coded ones ({limit}); what it resembles most is {resembles}"
    )


def _window_words(measured: Measured, place: int) -> str:
    """Say in words where a window lies, among several; what is not several is not mentioned."""
    start, seconds = measured.windows[2 * place :][:2]
    where, beside = "", len(measured.windows) // 2
    if len(measured.channels):
        channel = int(measured.channels[place])
        where = f" in channel {channel}" if channel else " in the mean of its channels"
        beside = int((measured.channels == channel).sum())
    return where if beside == 1 else f"{where} in the {seconds:.1f} s from {start:.1f} s on"


def _noise_response_words(
    detector: NccrDetector, measured: Measured, limit: str, words: Words
) -> str:
    """Say in words why the response to noise is unusual."""
    noise, what, deviation = detector.farthest(measured)
    direction = "above" if deviation > 0 else "below"
    return (
        f"its response to added noise is unlike that of clean {words.clean} ({limit}); "
        "adversarial attacks cause this, but a noisy or otherwise unusual file can as well. "
        f"The largest deviation is the {change_words(what)} under {noise_words(noise, words)}: "
        f"{abs(deviation):.1f} robust standard deviations {direction} the clean median"
    )


def add_duplicates(
    record: ScreenRecord, duplicates: Sequence[DuplicateFile], words: Words
) -> ScreenRecord:
    """Add the finding that the same recording, or image, is filed elsewhere as well."""
    shown = duplicates[:_NAMED]
    files = ", ".join(f"{t.id!r}{_whose(t, words)}" for t in shown)
    some = f" and {len(duplicates) - _NAMED} more" if len(duplicates) > _NAMED else ""
    correlations = ", ".join(f"{t.correlation:.2f}" for t in shown)
    why = f"it is {words.same} {files}{some} ({words.same_by}: {correlations})"
    record = replace(record, duplicate_of=tuple(duplicate.id for duplicate in duplicates))
    return record.with_findings(Finding.of("duplicate", why, words.remedies))


def _whose(duplicate: DuplicateFile, words: Words) -> str:
    """Name the speaker or folder of a duplicate, if it has one."""
    return "" if duplicate.speaker is None else f" of {words.group} {duplicate.speaker}"


def add_trigger_suspicion(
    record: ScreenRecord, trigger: TriggerSuspicion, words: Words
) -> ScreenRecord:
    """Add the finding that a file looks as if it carried a backdoor trigger."""
    finding = trigger.finding
    why = (
        f"the files for which the model predicts {finding.name} split into two groups, and this "
        f"file is in the one that mixes {words.many} (probability {trigger.suspicion:.2f}; "
        f"score {finding.score:.1f} from alarm {finding.alarm:.1f} and unlikeness "
        f"{finding.unlikeness:.1f}); files with a backdoor trigger form such a group"
    )
    return record.with_findings(Finding.of("poisoned", why, words.remedies))


def judge_speaker(records: Sequence[ScreenRecord], words: Words) -> SpeakerRecord:
    """Summarise the records of all files of one speaker, or of one folder of images."""
    readable = [record for record in records if record.verdict != "error"]
    found = {record.verdict for record in records}
    findings = []
    if len(readable) == 1 and "lonely" in words.remedies:
        why = (
            "this speaker has a single recording that could be read (of "
            f"{len(records)} in all), so its voice could not be compared with another one"
        )
        findings.append(Finding.of("lonely", why))
    return SpeakerRecord(
        speaker=records[0].speaker or "",
        verdict=next((one for one in (*FLAGGED, *NOT_JUDGED) if one in found), "clean"),
        files=len(records),
        flagged=sum(record.flagged for record in records),
        failed=sum(record.failed for record in records),
        findings=tuple(findings),
    )


def noise_words(noise: Noise, words: Words) -> str:
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
