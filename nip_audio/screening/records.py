"""Records of a screening: for each file and each speaker a verdict, its reasons and a remedy."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, TypeVar

from nip_audio.core.strict_json import load_json, made_of
from nip_audio.errors import FileError, ResumeError

__all__ = [
    "FLAGGED",
    "RISKS",
    "Finding",
    "ImageRecord",
    "Risk",
    "ScreenRecord",
    "SpeakerRecord",
    "Verdict",
    "check_error",
    "error_of",
    "read_record",
    "verdict_of",
]

Risk = Literal[
    "out_of_domain", "adversarial", "poisoned", "duplicate", "inconsistent", "damaged", "lonely"
]
"""What can be wrong with a file or a speaker that could be judged."""


Verdict = Literal[
    "clean",
    "adversarial",
    "poisoned",
    "duplicate",
    "inconsistent",
    "damaged",
    "out_of_domain",
    "error",
]

RISKS: dict[Risk, str] = {
    "out_of_domain": "calibrate on clean recordings like this one (nip-audio calibrate CLEAN_DIR) "
    "and screen again",
    "adversarial": "do not enrol it; listen to it and record it again; nip-audio purify writes a "
    "purified copy to compare with",
    "poisoned": "keep it out of training and enrolment; listen to it and find out where it came "
    "from",
    "duplicate": "find out whose voice it is and enrol it under that speaker only",
    "inconsistent": "do not enrol it until you know who is speaking; listen to it and ask",
    "damaged": "record it again, or get the original file",
    "lonely": "add at least one more recording of this speaker",
}
"""Remedy of each risk, most severe risk first; the first one found is a file's verdict."""

FLAGGED: tuple[Verdict, ...] = tuple(risk for risk in RISKS if risk != "lonely")
"""Verdicts that need a person's attention; ``error`` is counted separately."""


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
    """
    found = {finding.risk for finding in findings}
    return next((verdict for verdict in FLAGGED if verdict in found), "clean")


R = TypeVar("R", bound="_Record")


@dataclass(frozen=True)
class _Record:
    """Base of all records: each is written as one line of JSON and read back."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, with numbers rounded to six decimals."""
        values = asdict(self)
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}

    def to_line(self) -> str:
        """Return the record as one line of ASCII JSON, without a line break."""
        return json.dumps(self.to_json(), ensure_ascii=True, allow_nan=False)

    @classmethod
    def from_line(cls, line: str) -> Self:
        """Read a line that ``to_line`` wrote.

        Raises:
            ResumeError: If the line is not such a record.
        """
        return _read(line, cls.__name__, lambda data: cls)

    @classmethod
    def _of_json(cls, data: Any) -> Self:
        return made_of(cls, data)


@dataclass(frozen=True)
class ScreenRecord(_Record):
    """Result of screening one recording.

    Attributes:
        id: Path below the screened folder, or the ID in the manifest.
        speaker: Name of the folder that holds the file, or the speaker that the manifest gives;
            None if there is neither.
        verdict: Risk of the most severe finding. ``error``: the file could not be judged.
            ``out_of_domain``: unlike the audio of the calibration, so that the other checks mean
            little. ``adversarial``: responds to added noise unlike clean audio. ``poisoned``:
            belongs to a group of files to which the model gives one label although their voices
            differ, as files with a backdoor trigger do. ``duplicate``: the same recording is filed
            under another speaker.
            ``inconsistent``: does not sound like the speaker's other files. ``damaged``: clipped or
            interrupted. ``clean``: none of these, which does not prove that the file is harmless.
        findings: Everything that was found, not only what the verdict names.
        distance: Distance of the file's noise response from that of clean recordings, ≥ 0.
        distance_threshold: Distance above which a file is flagged as adversarial.
        p_value: Conformal p-value: share of clean recordings with at least this distance.
        q_value: Expected share of clean files among the files of this run with at least this
            distance (Benjamini–Hochberg; below 1 / (n + 1) it comes from a fitted tail and is an
            extrapolation). None if there was no run to compare with.
        domain_distance: Distance of the file's spectrum from those of clean recordings, ≥ 0.
        domain_threshold: Distance above which a file is out of domain.
        consistency: Mean cosine similarity to the core of the speaker's files; None if the speaker
            has fewer than two.
        consistency_threshold: Similarity below which a file is inconsistent, which is the
            verification threshold at the equal error rate; None if no speaker of the calibration
            has two recordings.
        duplicate_of: Ids of the other files that hold the same recording.
        duration_s: Duration in seconds.
        sample_rate_hz: Sample rate of the file.
        channels: Number of channels of the file.
        encoding: Encoding of the file, such as ``PCM_16``.
        bandwidth_hz: Highest frequency with content; above it there is only rounding noise.
        changes: What reading the file changed, such as its sample rate, in words.
        sha256: SHA-256 of the file's bytes.
        error: ``code``, ``found`` and ``remedy`` if the verdict is ``error``, else None.
    """

    id: str
    speaker: str | None
    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    distance: float | None = None
    distance_threshold: float | None = None
    p_value: float | None = None
    q_value: float | None = None
    domain_distance: float | None = None
    domain_threshold: float | None = None
    consistency: float | None = None
    consistency_threshold: float | None = None
    duplicate_of: tuple[str, ...] = ()
    duration_s: float | None = None
    sample_rate_hz: int | None = None
    channels: int | None = None
    encoding: str | None = None
    bandwidth_hz: float | None = None
    changes: tuple[str, ...] = ()
    sha256: str | None = None
    error: dict[str, str] | None = None

    @property
    def flagged(self) -> bool:
        """Whether the file needs a person's attention."""
        return self.verdict in FLAGGED

    @property
    def why(self) -> tuple[str, ...]:
        """Each finding, or the error, in words: what happened, why, and what to do."""
        if self.error is not None:
            return (f"{self.error['found']}. What to do: {self.error['remedy']}.",)
        return tuple(f"{finding.why}. What to do: {finding.remedy}." for finding in self.findings)


_OF_RECORDINGS = (
    *("domain_distance", "domain_threshold", "consistency", "consistency_threshold"),
    *("duration_s", "sample_rate_hz", "channels", "bandwidth_hz"),
)


@dataclass(frozen=True)
class ImageRecord(ScreenRecord):
    """Result of screening one image; fields that only recordings have are None and not written.

    Attributes:
        named: Label that the model predicts; None if the image could not be judged.
        height: Height of the file in pixels.
        width: Width of the file in pixels.
    """

    named: str | None = None
    height: int | None = None
    width: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, without the fields that only recordings have."""
        return {k: v for k, v in super().to_json().items() if k not in _OF_RECORDINGS}

    @classmethod
    def _of_json(cls, data: Any) -> Self:
        if not isinstance(data, dict) or data.keys() & set(_OF_RECORDINGS):
            raise ValueError("got fields of a recording, expected those of an image")
        return made_of(cls, data | dict.fromkeys(_OF_RECORDINGS))


def read_record(line: str) -> ScreenRecord:
    """Read a line that ``to_line`` wrote for a recording or an image.

    Raises:
        ResumeError: If the line is neither.
    """
    return _read(line, ScreenRecord.__name__, _kind_of)


def _kind_of(data: Any) -> type[ScreenRecord]:
    return ImageRecord if isinstance(data, dict) and "named" in data else ScreenRecord


def _read(line: str, what: str, kind_of: Callable[[Any], type[R]]) -> R:
    """Read a line as a record of the class that ``kind_of`` chooses for its values."""
    try:
        data = load_json(line)
        record = kind_of(data)._of_json(data)
        check_error(getattr(record, "error", None))
    except ValueError as err:
        raise ResumeError(
            f"got the line {line[:60]!r}, expected a {what} ({err}); screen into another --out"
        ) from err
    return record


@dataclass(frozen=True)
class SpeakerRecord(_Record):
    """Result of screening one speaker, or one folder of images.

    Attributes:
        speaker: Name of the speaker or folder.
        verdict: Most severe verdict of the files, or ``clean``; ``error`` if no file could be
            judged.
        files: Number of files.
        flagged: Number of flagged files.
        failed: Number of files that could not be judged.
        findings: Findings about the speaker as a whole, not about one file.
    """

    speaker: str
    verdict: Verdict
    files: int
    flagged: int
    failed: int
    findings: tuple[Finding, ...] = ()


def error_of(err: FileError) -> dict[str, str]:
    """Return the ``error`` field of a file that could not be judged."""
    return {"code": err.code, "found": err.found, "remedy": err.remedy}


def check_error(error: Mapping[str, str] | None) -> None:
    """Check the keys of an ``error`` field that was read from a file.

    Raises:
        ValueError: If they are not those that ``error_of`` writes.
    """
    if error is not None and error.keys() != {"code", "found", "remedy"}:
        raise ValueError(f"error has the keys {sorted(error)}, expected code, found and remedy")
