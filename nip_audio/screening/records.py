"""Records of a screening: for each file and each speaker a verdict, its reasons and a remedy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

from nip_audio.core.strict_json import build_dataclass, load_json
from nip_audio.errors import FileError, ResumeError
from nip_audio.screening.details import DETAILS, Details, RecordingDetails, names_of

__all__ = [
    "FLAGGED",
    "NOTES",
    "NOT_JUDGED",
    "RISKS",
    "Decision",
    "Finding",
    "Risk",
    "ScreenRecord",
    "SpeakerGate",
    "SpeakerRecord",
    "Verdict",
    "check_error",
    "error_of",
    "verdict_of",
]

Risk = Literal[
    "adversarial",
    "poisoned",
    "duplicate",
    "inconsistent",
    "damaged",
    "unfit",
    "out_of_domain",
    "lonely",
    "advice",
]
"""What can be wrong with a file or a speaker that could be judged."""


Decision = Literal["enrol", "record more", "reject", "ask"]
"""What the enrolment gate says to do with a speaker."""

Verdict = Literal[
    "clean",
    "adversarial",
    "poisoned",
    "duplicate",
    "inconsistent",
    "damaged",
    "unfit",
    "out_of_domain",
    "error",
]

RISKS: dict[Risk, str] = {
    "adversarial": "do not enrol it; listen to it and record it again; nip-audio purify writes a "
    "purified copy to compare with",
    "poisoned": "keep it out of training and enrolment; listen to it and find out where it came "
    "from",
    "duplicate": "find out whose voice it is and enrol it under that speaker only",
    "inconsistent": "do not enrol it until you know who is speaking; listen to it and ask",
    "damaged": "record it again, or get the original file",
    "unfit": "record again what the enrolment gate asks for",
    "out_of_domain": "calibrate on clean recordings like this one (nip-audio calibrate CLEAN_DIR) "
    "and screen again",
    "lonely": "add at least one more recording of this speaker",
    "advice": "record again what the enrolment gate asks for",
}
"""Remedy of each risk, most severe risk first; the first one found is a file's verdict.

``out_of_domain`` comes after all that can be found in a file. It hides no evidence, or an attacker
could add a tone to become out of domain.
"""

NOT_JUDGED: tuple[Verdict, ...] = ("out_of_domain", "error")
"""Verdicts of files that could not be judged: they are neither flagged nor clean."""

NOTES: tuple[Risk, ...] = ("lonely", "advice")
"""Risks that are told and are no verdict: ``advice`` is what ``unfit`` is to a strict gate."""

FLAGGED: tuple[Verdict, ...] = tuple(
    risk for risk in RISKS if risk != "out_of_domain" and risk != "lonely" and risk != "advice"
)
"""Verdicts of files in which something was found that needs a person's attention."""


@dataclass(frozen=True)
class Finding:
    """One problem that was found in a file or a speaker.

    Attributes:
        risk: Kind of problem, a key of ``RISKS``.
        why: Reason in words and numbers, written for a person.
        remedy: What the person should do about it.
    """

    risk: Risk
    why: str
    remedy: str

    @staticmethod
    def of(risk: Risk, why: str, remedies: Mapping[Risk, str] = RISKS) -> Finding:
        """Make a finding with the remedy that belongs to its risk."""
        return Finding(risk, why, remedies[risk])


def verdict_of(findings: tuple[Finding, ...]) -> Verdict:
    """Return the risk of the most severe finding, or ``clean`` if there is none.

    Example:
        >>> verdict_of((Finding.of("inconsistent", "…"), Finding.of("adversarial", "…")))
        'adversarial'
        >>> verdict_of((Finding.of("out_of_domain", "…"), Finding.of("adversarial", "…")))
        'adversarial'
    """
    found = {finding.risk for finding in findings}
    return next((v for v in (*FLAGGED, *NOT_JUDGED) if v in found), "clean")


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}


@dataclass(frozen=True)
class _Record:
    """Base of all records: each is written as one line of JSON and read back."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, with numbers rounded to six decimals."""
        return _rounded(asdict(self))

    def to_line(self) -> str:
        """Return the record as one line of ASCII JSON, without a line break."""
        return json.dumps(self.to_json(), ensure_ascii=True, allow_nan=False)

    @classmethod
    def from_line(cls, line: str) -> Self:
        """Read a line that ``to_line`` wrote.

        Raises:
            ResumeError: If the line is not such a record.
        """
        try:
            record = cls._of_json(load_json(line))
            check_error(getattr(record, "error", None))
        except ValueError as err:
            raise ResumeError(
                f"got the line {line[:60]!r}, expected a {cls.__name__} ({err}); screen into "
                "another `out`"
            ) from err
        return record

    @classmethod
    def _of_json(cls, data: Any) -> Self:
        return build_dataclass(cls, data)


@dataclass(frozen=True)
class ScreenRecord(_Record):
    """Result of screening one recording, or one image.

    Attributes:
        id: Path below the screened folder, or the ID in the manifest.
        speaker: Name of the folder that holds the file, or the speaker that the manifest gives;
            None if there is neither.
        verdict: Risk of the most severe finding. ``error``: the file could not be read or measured.
            ``out_of_domain``: unlike the audio of the calibration, so that it could not be judged:
            nothing else was found, and that means little. ``adversarial``: responds to noise or to
            purification unlike clean audio. ``poisoned``: belongs to a group of files to which the
            model gives one label although their voices differ, as files with a backdoor trigger
            do. ``duplicate``: the same recording is filed under another speaker.
            ``inconsistent``: does not sound like the speaker's other files. ``damaged``: clipped or
            interrupted. ``unfit``: does not keep a limit of a strict enrolment gate. ``clean``:
            none of these, which does not prove that the file is harmless.
        findings: Everything that was found, not only what the verdict names.
        distance: Distance of the file's noise response from that of clean recordings, ≥ 0.
        distance_threshold: Distance above which a file is flagged as adversarial.
        p_value: Conformal p-value: share of clean recordings with at least this distance.
        q_value: Expected share of clean files among the files of this run with at least this
            distance (Benjamini–Hochberg; below 1 / (n + 1) it comes from a fitted tail and is an
            extrapolation). None if there was no run to compare with.
        duplicate_of: Ids of the other files that hold the same recording.
        encoding: Encoding of the file, such as ``PCM_16``.
        changes: What reading the file changed, such as its sample rate, in words.
        sha256: SHA-256 of the file's bytes.
        error: ``code``, ``found`` and ``remedy`` if the verdict is ``error``, else None.
        details: Everything else that is known about a recording, or about an image. They are
            written among the other fields, and recognised by the fields of a line.
    """

    id: str
    speaker: str | None
    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    distance: float | None = None
    distance_threshold: float | None = None
    p_value: float | None = None
    q_value: float | None = None
    duplicate_of: tuple[str, ...] = ()
    encoding: str | None = None
    changes: tuple[str, ...] = ()
    sha256: str | None = None
    error: dict[str, str] | None = None
    details: Details = RecordingDetails()

    @property
    def flagged(self) -> bool:
        """Whether something was found in the file that needs a person's attention."""
        return self.verdict in FLAGGED

    @property
    def failed(self) -> bool:
        """Whether the file could not be judged: it could not be read, or is out of domain."""
        return self.verdict in NOT_JUDGED

    @property
    def why(self) -> tuple[str, ...]:
        """Each finding, or the error, in words: what happened, why, and what to do."""
        if self.error is not None:
            return (f"{self.error['found']}. What to do: {self.error['remedy']}.",)
        return tuple(f"{finding.why}. What to do: {finding.remedy}." for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, with numbers rounded to six decimals."""
        values = super().to_json()
        values |= _rounded(values.pop("details"))
        return {name: values[name] for name in self.details.written}

    @classmethod
    def _of_json(cls, data: Any) -> Self:
        given = data.keys() if isinstance(data, dict) else set()
        kind = next((one for one in DETAILS if given == set(one.written)), None)
        if kind is None:
            raise ValueError("got other fields than those of a recording or an image")
        details = {name: data.pop(name) for name in names_of(kind)}
        return build_dataclass(cls, data | {"details": details})

    def with_findings(self, *findings: Finding) -> ScreenRecord:
        """Return the record with these findings added and the verdict that follows from all."""
        every = (*self.findings, *findings)
        return replace(self, findings=every, verdict=verdict_of(every))


@dataclass(frozen=True)
class SpeakerGate:
    """What the enrolment gate says about a speaker.

    Attributes:
        recordings: Number of usable recordings: nothing was found in them, and they keep all
            limits.
        speech_s: Seconds of speech in them.
        cohesion: Mean cosine similarity of the pairs of them; None for fewer than two.
        cohesion_low: Lower end of its 95 % interval, by bootstrap over recordings; None for fewer
            than three.
        cohesion_high: Upper end of this interval.
        nearest: Other speaker of the run whose recordings sound most like this one's; None if
            there is none. Recordings that fail a limit are left out of this comparison.
        nearest_cosine: Mean cosine similarity between the recordings of the two.
        nearest_same: Probability that the two are one voice, for even odds beforehand; None if
            the calibration knows no two different voices: not evaluated.
        decision: ``enrol``, ``record more``, ``reject`` or ``ask`` (a person who listens).
        why: Reason of the decision in words.
    """

    recordings: int
    speech_s: float
    cohesion: float | None
    cohesion_low: float | None
    cohesion_high: float | None
    nearest: str | None
    nearest_cosine: float | None
    nearest_same: float | None
    decision: Decision
    why: str


@dataclass(frozen=True)
class SpeakerRecord(_Record):
    """Result of screening one speaker, or one folder of images.

    Attributes:
        speaker: Name of the speaker or folder.
        verdict: Most severe verdict of the files; ``clean`` only if all of them are clean.
        files: Number of files.
        flagged: Number of flagged files.
        failed: Number of files that could not be judged: unreadable, or out of domain.
        findings: Findings about the speaker as a whole, not about one file.
        gate: What the enrolment gate says; None if it was not asked for.
    """

    speaker: str
    verdict: Verdict
    files: int
    flagged: int
    failed: int
    findings: tuple[Finding, ...] = ()
    gate: SpeakerGate | None = None


def error_of(err: FileError) -> dict[str, str]:
    """Return the ``error`` field of a file that could not be read or measured."""
    return {"code": err.code, "found": err.found, "remedy": err.remedy}


def check_error(error: Mapping[str, str] | None) -> None:
    """Check the keys of an ``error`` field that was read from a file.

    Raises:
        ValueError: If they are not those that ``error_of`` writes.
    """
    if error is not None and error.keys() != {"code", "found", "remedy"}:
        raise ValueError(f"error has the keys {sorted(error)}, expected code, found and remedy")
