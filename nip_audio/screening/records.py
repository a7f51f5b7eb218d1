"""One record a file and one a speaker: what was measured, the verdict, why, and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, TypeVar

from nip_audio.core.strict_json import build_dataclass, load_json
from nip_audio.errors import FileError, ResumeError

__all__ = [
    "FLAGGED",
    "RISKS",
    "Finding",
    "PictureRecord",
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
"""What can be wrong with a file or a speaker, short of not being readable."""


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
    "out_of_domain": "calibrate on clean audio of your own: nip-audio calibrate CLEAN_DIR",
    "adversarial": "do not enrol it; listen, and record it again; to look closer: nip-audio purify",
    "poisoned": "keep it out of training and enrolment; listen, and ask where it came from",
    "duplicate": "enrol it under one speaker only; ask whose voice it is",
    "inconsistent": "listen, and ask who spoke; do not enrol it until that is known",
    "damaged": "record it again, or fetch the original",
    "lonely": "record more of this speaker: with one file nothing can be compared",
}
"""What to do, by risk; the gravest first where a file has several."""

FLAGGED: tuple[Verdict, ...] = tuple(risk for risk in RISKS if risk != "lonely")
"""Verdicts that ask for a person's attention, short of a file that cannot be read."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        risk: Which.
        why: In words and numbers.
        remedy: What to do.
    """

    risk: Risk
    why: str
    remedy: str

    @staticmethod
    def of(risk: Risk, why: str, remedies: Mapping[Risk, str] = RISKS) -> Finding:
        """Return a finding with the remedy of its risk."""
        return Finding(risk, why, remedies[risk])


def verdict_of(findings: tuple[Finding, ...]) -> Verdict:
    """Return the gravest finding's risk, or ``clean``.

    Example:
        >>> verdict_of((Finding.of("inconsistent", "…"), Finding.of("adversarial", "…")))
        'adversarial'
    """
    found = {finding.risk for finding in findings}
    return next((verdict for verdict in FLAGGED if verdict in found), "clean")


R = TypeVar("R", bound="_Record")


@dataclass(frozen=True)
class _Record:
    """What records share: how they are written, one JSON a line, and read."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; numbers rounded to six decimals."""
        values = asdict(self)
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}

    def to_line(self) -> str:
        """Return one line of JSON."""
        return json.dumps(self.to_json(), ensure_ascii=True, allow_nan=False)

    @classmethod
    def from_line(cls, line: str) -> Self:
        """Read what ``to_line`` wrote.

        Raises:
            ResumeError: If the line is something else.
        """
        return _read(line, cls.__name__, lambda data: cls)

    @classmethod
    def _of_json(cls, data: Any) -> Self:
        return build_dataclass(cls, data)


@dataclass(frozen=True)
class ScreenRecord(_Record):
    """Result for one file.

    Attributes:
        id: Path below the screened folder, or the manifest's ID.
        speaker: Folder it lies in, or whom the manifest names; None where neither does.
        verdict: ``error``: could not be judged. ``out_of_domain``: unlike the calibration's audio,
            so the detector's word means nothing. ``adversarial``: behaves under noise as clean
            audio of the calibration's kind does not. ``poisoned``: of two kinds of files under one
            name the one that is unlike other names', as files with a backdoor's trigger are.
            ``duplicate``: the same recording lies under another speaker. ``inconsistent``: does not
            sound like its speaker's other files. ``damaged``: something is missing from it.
            ``clean``: none of these; it is no proof of innocence.
        findings: Everything that was found, not only the verdict's own.
        distance: From clean evidence.
        distance_threshold: Flagged above it.
        p_value: Share of clean audio that is as far off, conformal.
        q_value: Share of clean files expected among those as far off as this one in this run
            (Benjamini–Hochberg; below 1 / (n + 1) from the fitted tail, an extrapolation). None
            where there was nothing to compare with.
        domain_distance: From clean spectra.
        domain_threshold: Out of domain above it.
        consistency: Mean cosine to the core of its speaker's files; None if there are fewer than
            two.
        consistency_threshold: Flagged below it: the cosine of the equal error rate; None if the
            calibration knows no speaker twice.
        duplicate_of: Ids of other files with the same recording.
        duration_s: Seconds.
        sample_rate_hz: Of the file.
        channels: Of the file.
        encoding: Of the file.
        bandwidth_hz: Above it there is nothing.
        changes: What reading it changed.
        sha256: Of the file's bytes.
        error: ``code``, ``found`` and ``remedy`` where the verdict is ``error``.
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
        """Whether a person should look."""
        return self.verdict in FLAGGED

    @property
    def why(self) -> tuple[str, ...]:
        """What was found or failed, in words, one sentence each."""
        if self.error is not None:
            return (f"{self.error['found']}; {self.error['remedy']}",)
        return tuple(f"{finding.why}; {finding.remedy}" for finding in self.findings)


_OF_RECORDINGS = (
    *("domain_distance", "domain_threshold", "consistency", "consistency_threshold"),
    *("duration_s", "sample_rate_hz", "channels", "bandwidth_hz"),
)


@dataclass(frozen=True)
class PictureRecord(ScreenRecord):
    """Result for one picture: what only recordings have is None, and is not written.

    Attributes:
        named: What the model names it; None if it could not be judged.
        height: Rows of the file.
        width: Columns of the file.
    """

    named: str | None = None
    height: int | None = None
    width: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, without those that no picture has."""
        return {k: v for k, v in super().to_json().items() if k not in _OF_RECORDINGS}

    @classmethod
    def _of_json(cls, data: Any) -> Self:
        if not isinstance(data, dict) or data.keys() & set(_OF_RECORDINGS):
            raise ValueError("no record of a picture")
        return build_dataclass(cls, data | dict.fromkeys(_OF_RECORDINGS))


def read_record(line: str) -> ScreenRecord:
    """Read what ``to_line`` wrote of a file, whatever its kind.

    Raises:
        ResumeError: If the line is something else.
    """
    return _read(line, ScreenRecord.__name__, _kind_of)


def _kind_of(data: Any) -> type[ScreenRecord]:
    return PictureRecord if isinstance(data, dict) and "named" in data else ScreenRecord


def _read(line: str, what: str, kind_of: Callable[[Any], type[R]]) -> R:
    """Read a line as a record of the kind that its values are of."""
    try:
        data = load_json(line)
        record = kind_of(data)._of_json(data)
        check_error(getattr(record, "error", None))
    except ValueError as err:
        raise ResumeError(
            f"a line is no {what} ({err}): {line[:60]!r}; screen into another --out"
        ) from err
    return record


@dataclass(frozen=True)
class SpeakerRecord(_Record):
    """Result for one speaker, or, of pictures, for one folder.

    Attributes:
        speaker: Whose files.
        verdict: The gravest of the files' verdicts, or ``clean``; ``error`` if no file could be
            judged.
        files: How many.
        flagged: How many of them are flagged.
        failed: How many could not be judged.
        findings: What concerns the speaker rather than one file.
    """

    speaker: str
    verdict: Verdict
    files: int
    flagged: int
    failed: int
    findings: tuple[Finding, ...] = ()


def error_of(err: FileError) -> dict[str, str]:
    """Return what a record says of a file that could not be judged."""
    return {"code": err.code, "found": err.found, "remedy": err.remedy}


def check_error(error: Mapping[str, str] | None) -> None:
    """Check what ``error_of`` gave, read back.

    Raises:
        ValueError: If it is something else.
    """
    if error is not None and error.keys() != {"code", "found", "remedy"}:
        raise ValueError("an error without code, found and remedy")
