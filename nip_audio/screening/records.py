"""One record a file: what was measured, the verdict, and why."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from nip_audio.audio.io import Audio
from nip_audio.audio.manifest import Recording
from nip_audio.errors import AudioError, ResumeError

__all__ = ["FLAGGED", "ScreenRecord", "Verdict", "error_record"]

Verdict = Literal["clean", "adversarial", "inconsistent", "out_of_domain", "error"]

FLAGGED: tuple[Verdict, ...] = ("adversarial", "inconsistent", "out_of_domain")
"""Verdicts that ask for a person's attention, short of a file that cannot be read."""


@dataclass(frozen=True)
class ScreenRecord:
    """Result for one file.

    Attributes:
        id: Path below the screened folder.
        speaker: Folder it lies in; None where flat.
        verdict: ``error``: could not be judged. ``out_of_domain``: unlike the calibration's audio,
            so the detector's word means nothing. ``adversarial``: behaves under noise as clean
            audio of the calibration's kind does not. ``inconsistent``: does not sound like the
            rest of its folder. ``clean``: none of these; it is no proof of innocence.
        reasons: Why, in words and numbers; everything that was found, not only the verdict's own.
        distance: From clean NCCR vectors.
        distance_threshold: Flagged above it.
        p_value: Share of clean audio that is as far off, conformal.
        domain_distance: From clean spectra.
        domain_threshold: Out of domain above it.
        consistency: Mean cosine to the folder's core; None if the folder has fewer than two.
        consistency_threshold: Flagged below it: the cosine of the equal error rate; None if the
            calibration knows no speaker twice.
        duration_s: Seconds.
        sample_rate_hz: Of the file.
        channels: Of the file.
        encoding: Of the file.
        changes: What reading it changed.
        sha256: Of the file's bytes.
        error: ``code``, ``found`` and ``remedy`` where the verdict is ``error``.
    """

    id: str
    speaker: str | None
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    distance: float | None = None
    distance_threshold: float | None = None
    p_value: float | None = None
    domain_distance: float | None = None
    domain_threshold: float | None = None
    consistency: float | None = None
    consistency_threshold: float | None = None
    duration_s: float | None = None
    sample_rate_hz: int | None = None
    channels: int | None = None
    encoding: str | None = None
    changes: tuple[str, ...] = ()
    sha256: str | None = None
    error: dict[str, str] | None = None

    @property
    def flagged(self) -> bool:
        """Whether a person should look."""
        return self.verdict in FLAGGED

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; numbers rounded to six decimals."""
        return {
            name: round(value, 6) if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }

    def to_line(self) -> str:
        """Return one line of JSON."""
        return json.dumps(self.to_json(), ensure_ascii=True, allow_nan=False)

    @staticmethod
    def from_line(line: str) -> ScreenRecord:
        """Read what ``to_line`` wrote.

        Raises:
            ResumeError: If the line is something else.
        """
        try:
            data = json.loads(line)
            if set(data) != {f.name for f in fields(ScreenRecord)}:
                raise ValueError("other fields")
        except (TypeError, ValueError) as err:
            raise ResumeError(
                f"a line is no screen record ({err}): {line[:60]!r}; use another --out"
            ) from err
        data["reasons"], data["changes"] = tuple(data["reasons"]), tuple(data["changes"])
        return ScreenRecord(**data)


def error_record(recording: Recording, err: AudioError) -> ScreenRecord:
    """Return the record of a file that could not be judged."""
    return ScreenRecord(
        id=recording.id,
        speaker=recording.speaker,
        verdict="error",
        reasons=(f"{err.found}; {err.remedy}",),
        error={"code": err.code, "found": err.found, "remedy": err.remedy},
    )


def file_facts(audio: Audio) -> dict[str, Any]:
    """Return a record's facts about the file itself."""
    return {
        "duration_s": audio.duration_s,
        "sample_rate_hz": audio.source_rate_hz,
        "channels": audio.source_channels,
        "encoding": audio.encoding,
        "changes": audio.changes,
        "sha256": audio.sha256,
    }
