"""What a run's records amount to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy.stats import binom

from nip_audio.screening.records import ScreenRecord

__all__ = ["ScreenSummary", "summarize"]

_TAIL = 0.05
_SURPRISE = 1e-3


@dataclass(frozen=True)
class ScreenSummary:
    """Counts of a run.

    Attributes:
        files: Number of files.
        verdicts: Files by verdict.
        errors: Unreadable files by error code.
        speakers: Number of speaker folders.
        warning: Said when the run as a whole is unlike the calibration's audio, so that single
            verdicts mean little; None if it is not.
    """

    files: int
    verdicts: dict[str, int]
    errors: dict[str, int]
    speakers: int
    warning: str | None

    @property
    def flagged(self) -> int:
        """Files a person should look at, unreadable ones not counted."""
        return sum(n for verdict, n in self.verdicts.items() if verdict not in ("clean", "error"))

    @property
    def failed(self) -> int:
        """Files that could not be judged."""
        return self.verdicts.get("error", 0)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self) | {"flagged": self.flagged, "failed": self.failed}


def summarize(records: Sequence[ScreenRecord]) -> ScreenSummary:
    """Count, and ask whether the calibration fits this run at all.

    Clean audio like the calibration's has p-values below 5 % in 5 % of the files. Far more of them
    mean other audio (another language, microphone or codec, synthetic voices) or a mass attack.
    """
    verdicts = Counter(record.verdict for record in records)
    return ScreenSummary(
        files=len(records),
        verdicts={name: verdicts[name] for name in sorted(verdicts)},
        errors=dict(sorted(Counter(r.error["code"] for r in records if r.error).items())),
        speakers=len({r.speaker for r in records if r.speaker is not None}),
        warning=_warning(records),
    )


def _warning(records: Sequence[ScreenRecord]) -> str | None:
    judged = [r for r in records if r.p_value is not None]
    outside = sum(r.verdict == "out_of_domain" for r in judged)
    unusual = sum(r.p_value is not None and r.p_value <= _TAIL for r in judged)
    surprising = bool(judged) and binom.sf(unusual - 1, len(judged), _TAIL) < _SURPRISE
    if not judged or (
        outside * 2 < len(judged) and not (surprising and unusual * 5 >= len(judged))
    ):
        return None
    return (
        f"this audio is unlike the calibration's: {outside} of {len(judged)} files are out of "
        f"domain and {unusual} react to noise as at most 5 % of clean audio does. Either most "
        "files are attacked, or the audio is of another kind (microphone, codec, language, "
        "synthetic voices). Calibrate on clean audio of your own: nip-audio calibrate CLEAN_DIR "
        "--out my.calibration, then screen with --calibration my.calibration"
    )
