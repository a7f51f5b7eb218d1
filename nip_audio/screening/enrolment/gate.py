"""The enrolment gate of a run: limits, and what they make of its recordings and speakers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from nip_audio.screening.calibration import Calibration
from nip_audio.screening.enrolment.files import Failure, add_failures, failures_of
from nip_audio.screening.enrolment.limits import GateLimits, read_gate
from nip_audio.screening.enrolment.speakers import (
    Nearest,
    Voices,
    decide,
    is_mostly_bad,
    nearest_voices,
)
from nip_audio.screening.measured import FileFacts, MeasuredFile
from nip_audio.screening.recordings import told_by_findings
from nip_audio.screening.records import Finding, Risk, ScreenRecord, SpeakerRecord

__all__ = ["DECISION_REMEDIES", "EnrolmentGate", "GateTally"]

_NAMED = 5


@dataclass(frozen=True)
class EnrolmentGate:
    """Judges recordings and speakers by limits.

    Attributes:
        limits: Limits to keep.
        strict: Whether a failure is a verdict (``unfit``), and sets the exit code, or a note.
    """

    limits: GateLimits
    strict: bool = False

    @staticmethod
    def at(
        limits: Path | GateLimits | None = None,
        *,
        outside: Path | None = None,
        strict: bool = False,
    ) -> EnrolmentGate:
        """Return the gate of these limits, read if they are a file; None has the defaults.

        Args:
            limits: Limits to keep, or a TOML file of them.
            outside: Folder that is screened, in which the file must not lie; None if there is none.
            strict: Whether a failure is a verdict, or a note.

        Raises:
            InputError: If the file cannot be used.
        """
        if isinstance(limits, Path):
            return EnrolmentGate(read_gate(limits, outside=outside), strict)
        return EnrolmentGate(GateLimits.of(None) if limits is None else limits, strict)

    def to_json(self) -> dict[str, Any]:
        """Return everything that the gate's decisions depend on besides the files."""
        return {**self.limits.to_json(), "strict": self.strict}

    def judge_file(
        self, record: ScreenRecord, file: MeasuredFile, calibration: Calibration
    ) -> ScreenRecord:
        """Add to the record of a recording what the gate finds; an unreadable one has no more."""
        facts, speech = cast("FileFacts", file.facts), file.speech
        if speech is None:  # only recordings that could be read have it
            return record
        return add_failures(
            record,
            speech,
            self._failures(file, calibration),
            told=told_by_findings(facts, calibration),
            strict=self.strict,
        )

    def listen(self, voices: Voices, file: MeasuredFile, calibration: Calibration) -> None:
        """Add the voice of a recording that keeps all limits to its speaker's."""
        if file.measurement is None or file.speech is None or file.speaker is None:
            return
        if not self._failures(file, calibration):
            voices.add(file.speaker, file.measurement.embedding)

    def compare_speakers(self, voices: Voices, calibration: Calibration) -> dict[str, Nearest]:
        """Return for each speaker the other one who sounds most like them."""
        return nearest_voices(voices, calibration.same_voice)

    def judge_speaker(
        self,
        speaker: SpeakerRecord,
        records: Sequence[ScreenRecord],
        files: Sequence[MeasuredFile],
        nearest: Nearest | None,
        calibration: Calibration,
    ) -> SpeakerRecord:
        """Add the gate's decision about a speaker, and a finding unless it is to enrol.

        Args:
            speaker: Record of the speaker.
            records: Records of the speaker's recordings.
            files: Measurements of the same recordings.
            nearest: Other speaker who sounds most like this one; None if there is none.
            calibration: Calibration with the verification threshold.
        """
        measured = (file for file in files if file.measurement is not None)
        embeddings = {file.id: file.measurement.embedding for file in measured}  # type: ignore[union-attr]
        gate = decide(
            records, embeddings, nearest, self.limits.speaker, calibration.verification_threshold
        )
        if gate.decision == "enrol":
            return replace(speaker, gate=gate)
        risk: Risk = "unfit" if self.strict else "advice"
        finding = Finding(risk, f"{gate.decision}: {gate.why}", DECISION_REMEDIES[gate.decision])
        return replace(speaker, gate=gate, findings=(*speaker.findings, finding))

    def _failures(self, file: MeasuredFile, calibration: Calibration) -> list[Failure]:
        if file.speech is None:
            return []
        facts, threshold = cast("FileFacts", file.facts), calibration.verification_threshold
        return failures_of(file.speech, facts, self.limits.recording, threshold)


DECISION_REMEDIES: Mapping[str, str] = {
    "record more": "record more of this speaker, and screen again",
    "ask": "enrol nothing of this speaker until a person has listened",
    "reject": "enrol nothing of this speaker, and record again",
}
"""What to do about a speaker, by every decision but to enrol."""


class GateTally:
    """Counts what the gate finds in a run, speaker by speaker."""

    def __init__(self) -> None:
        """Start with all counts at zero."""
        self._files = self._unfit = 0
        self._limits: Counter[str] = Counter()
        self._decisions: Counter[str] = Counter()
        self._bad: list[str] = []

    def add(self, records: Sequence[ScreenRecord], speaker: SpeakerRecord | None) -> None:
        """Count the records of one speaker, or of one file without a speaker."""
        for record in records:
            unmet = getattr(record.details, "unmet", None) or ()
            self._files += 1
            self._unfit += bool(unmet)
            self._limits.update(unmet)
        if speaker is not None and speaker.gate is not None:
            self._decisions[speaker.gate.decision] += 1
            if is_mostly_bad(records):
                self._bad.append(speaker.speaker)

    def to_json(self) -> dict[str, Any]:
        """Return the counts as summary.json has them."""
        return {
            "unfit": self._unfit,
            "unmet": dict(sorted(self._limits.items())),
            "decisions": dict(sorted(self._decisions.items())),
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know about the run as a whole, in sentences."""
        notes = []
        if self._decisions:
            counts = ", ".join(f"{n} {name}" for name, n in sorted(self._decisions.items()))
            notes.append(f"enrolment gate, speakers: {counts}")
        if 2 * self._unfit > self._files:
            limit, number = self._limits.most_common(1)[0]
            notes.append(
                f"most of this folder fails the enrolment gate ({self._unfit} of {self._files} "
                f"recordings, {number} of them {limit}): look at how it was recorded, or at the "
                "limits (--gate), before you look at single recordings; few are left to compare "
                "voices with"
            )
        elif self._unfit:
            counts = ", ".join(f"{limit} {n}" for limit, n in self._limits.most_common())
            notes.append(
                f"enrolment gate, recordings: {self._unfit} of {self._files} miss a limit "
                f"({counts})"
            )
        if self._bad and 2 * self._unfit <= self._files:
            names = ", ".join(self._bad[:_NAMED])
            more = len(self._bad) - _NAMED
            notes.append(
                f"most recordings of {names}{f' and {more} more' if more > 0 else ''} fail the "
                "enrolment gate, so what differs from them there may be the good one"
            )
        return tuple(notes)
