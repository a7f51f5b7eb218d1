"""Summarise the records of a run: count verdicts, and warn if the calibration does not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from nip_audio.screening.kind import Words
from nip_audio.screening.records import FLAGGED, NOT_JUDGED, ScreenRecord, SpeakerRecord

__all__ = ["ScreenSummary", "Tally"]

_TAIL = 0.05
_SURPRISE = 1e-3

_NO_SPEECH = frozenset(
    f".{ending}"
    for ending in (
        *("txt", "md", "rst", "tex", "pdf", "doc", "docx", "odt", "html", "htm", "xml", "log"),
        *("csv", "tsv", "json", "jsonl", "yaml", "yml", "toml", "ini", "cfg", "conf", "xls"),
        *("xlsx", "ods", "parquet", "lab", "ctm", "stm", "trn", "textgrid", "srt", "vtt", "scp"),
        *("png", "jpg", "jpeg", "gif", "bmp", "tif", "tiff", "webp", "svg", "ico"),
        *("py", "sh", "ipynb", "npy", "npz", "pt", "safetensors", "onnx", "sha256", "md5", "lock"),
    )
)
"""Endings of files that hold no speech."""


@dataclass(frozen=True)
class ScreenSummary:
    """Counts of a run.

    Attributes:
        files: Number of files.
        verdicts: Number of files for each verdict.
        errors: Number of files for each error code.
        speakers: Number of speakers.
        speakers_flagged: Number of speakers with at least one flagged file.
        expected_by_chance: Number of files that would be called adversarial if all were clean and
            like those of the calibration.
        backdoor: Result of the search for backdoor triggers in words; None if it was not made.
        warning: Warning that the run as a whole is unlike the calibration, so that single verdicts
            mean little; None if it is like it.
        passed_over: Files of the folder that were not read, as ``Survey.to_json`` counts them.
        notes: What a person should know about the folder and the settings, in sentences.
        gated: What the enrolment gate counted: ``unfit`` recordings, ``unmet`` limits and
            ``decisions`` about speakers; None without a gate.
    """

    files: int
    verdicts: dict[str, int]
    errors: dict[str, int]
    speakers: int
    speakers_flagged: int
    expected_by_chance: float
    backdoor: str | None
    warning: str | None
    passed_over: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    gated: dict[str, Any] | None = None

    @property
    def unseen(self) -> int:
        """Number of files that nobody read and that may hold speech, and of speakers without one.

        Transcripts, tables, images and programs hold none.
        """
        endings = self.passed_over.get("endings", {})
        files = sum(n for ending, n in endings.items() if ending not in _NO_SPEECH)
        return int(files) + len(self.passed_over.get("groups_without_files", ()))

    @property
    def doubtful(self) -> bool:
        """Whether the run must not pass for clean, whatever the verdicts of its files are.

        That is so if files that may hold speech or whole speakers were passed over, or if the
        warning says that the verdicts mean little.
        """
        return self.unseen > 0 or self.warning is not None

    @property
    def incomplete(self) -> bool:
        """Whether something was not judged, so that the run must not pass for clean."""
        return self.failed > 0 or self.doubtful

    @property
    def flagged(self) -> int:
        """Number of files in which something was found that needs a person's attention."""
        return sum(self.verdicts.get(verdict, 0) for verdict in FLAGGED)

    @property
    def failed(self) -> int:
        """Number of files that could not be judged: unreadable, or out of domain."""
        return sum(self.verdicts.get(verdict, 0) for verdict in NOT_JUDGED)

    @property
    def not_judged(self) -> dict[str, int]:
        """Number of files that could not be judged, by the code of their error or by verdict."""
        others = [verdict for verdict in NOT_JUDGED if verdict != "error"]
        counts = {str(v): self.verdicts[v] for v in others if self.verdicts.get(v)}
        return {**self.errors, **counts}

    def to_json(self) -> dict[str, Any]:
        """Return all counts as plain JSON values."""
        counts = {"flagged": self.flagged, "failed": self.failed, "incomplete": self.incomplete}
        return asdict(self) | counts


class Tally:
    """Counts the records of a run, speaker by speaker.

    Args:
        false_positive_rate: False-positive rate of the check for adversarial files.
        words: Words for the files of this modality.
    """

    def __init__(self, false_positive_rate: float, words: Words) -> None:
        """Start with all counts at zero."""
        self._rate = false_positive_rate
        self._words = words
        self._verdicts: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._speakers = self._speakers_flagged = 0
        self._judged = self._unusual = self._unusual_unflagged = 0

    def add(self, records: Sequence[ScreenRecord], speaker: SpeakerRecord | None) -> None:
        """Count the records of one speaker, or of one file without a speaker."""
        for record in records:
            self._verdicts[record.verdict] += 1
            if record.error is not None:
                self._errors[record.error["code"]] += 1
            if record.p_value is not None:
                self._judged += 1
                unusual = record.p_value <= _TAIL
                self._unusual += unusual
                self._unusual_unflagged += unusual and record.verdict != "adversarial"
        if speaker is not None:
            self._speakers += 1
            self._speakers_flagged += speaker.flagged > 0

    def summary(self, *, backdoor: str | None = None) -> ScreenSummary:
        """Return the counts.

        Args:
            backdoor: Result of the search for triggers in words; None if it was not made.
        """
        return ScreenSummary(
            files=self._verdicts.total(),
            verdicts=dict(sorted(self._verdicts.items())),
            errors=dict(sorted(self._errors.items())),
            speakers=self._speakers,
            speakers_flagged=self._speakers_flagged,
            expected_by_chance=round(self._rate * self._judged, 2),
            backdoor=backdoor,
            warning=self._warning(),
        )

    def _warning(self) -> str | None:
        """Return a warning if the calibration does not fit this run, else None.

        Among clean files like those of the calibration, 5 % have p-values below 5 %. Far more of
        them mean another kind of audio (language, microphone, codec, synthetic voices) or an attack
        on many files. A few flagged files speak for themselves: without them, too, there must be
        far more, unless most files are flagged.
        """
        judged, unusual = self._judged, self._unusual
        outside, flagged = self._verdicts["out_of_domain"], self._verdicts["adversarial"]
        strange = _is_surprising(unusual, judged) and (
            flagged * 2 >= judged or _is_surprising(self._unusual_unflagged, judged - flagged)
        )
        if judged == 0 or (outside * 2 < judged and not strange):
            return None
        return self._words.warning.format(outside=outside, judged=judged, unusual=unusual)


def _is_surprising(unusual: int, judged: int) -> bool:
    """Tell whether so many p-values below 5 % are no chance, and enough of them to matter."""
    if judged == 0 or unusual * 5 < judged:
        return False
    from scipy.stats import binom  # takes a second to import, and most runs come without

    return bool(binom.sf(unusual - 1, judged, _TAIL) < _SURPRISE)
