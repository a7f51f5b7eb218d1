"""Turn records into compact JSON rows, so that a page of 50,000 files stays small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nip_audio.audio.archives import archive_of
from nip_audio.reporting.escaping import link_to, visible
from nip_audio.screening.details import Details, names_of
from nip_audio.screening.records import RISKS, Finding, ScreenRecord, SpeakerRecord
from nip_audio.screening.sources import Source

__all__ = ["SPEAKER_COLUMNS", "Rows"]

_FIRST = ("id", "speaker", "verdict")
_LAST = ("encoding", "changes", "findings", "error", "duplicate_of", "link")
SPEAKER_COLUMNS = ("speaker", "verdict", "files", "flagged", "failed", "findings", "gate")
_SEVERITY = {risk: place for place, risk in enumerate(RISKS)}
_GATE = ("recordings", "speech_s", "cohesion", "cohesion_low", "cohesion_high", "decision")


class Rows:
    """Turns records into rows; characters that do not print are escaped.

    Args:
        folder: Folder of the page, to which links are relative.
        source: Source of the files; None makes no links. Files behind a URL have none either,
            because the page uses no network.
        details: Class of the details of the records.
    """

    def __init__(self, folder: Path, source: Source | None, details: type[Details]) -> None:
        """Start with no recurring texts."""
        texts = names_of(details, str)
        numbers = (n for n in names_of(details) if n not in texts and not n.endswith("_threshold"))
        self._plain = (
            "distance",
            "distance_threshold",
            "p_value",
            "q_value",
            *numbers,
            "sha256",
            *texts,
        )
        self._folder, self._source = folder.absolute(), source
        self._words: dict[str, int] = {}

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a file's row. Texts that recur, such as verdicts, are numbers in the rows."""
        return (*_FIRST, *self._plain, *_LAST)

    @property
    def words(self) -> list[str]:
        """Recurring texts; a number in a row is an index of this list."""
        return list(self._words)

    def of_file(self, record: ScreenRecord) -> list[Any]:
        """Return the row of a file, with the values of ``columns``."""
        plain = record.to_json()
        error = record.error
        return [
            visible(record.id),
            self._word(record.speaker),
            self._word(record.verdict),
            *(_shown(plain[name]) for name in self._plain),
            self._word(record.encoding),
            [self._word(change) for change in record.changes],
            self._findings(record.findings),
            error and [error["code"], visible(error["found"]), self._word(error["remedy"])],
            [visible(other) for other in record.duplicate_of],
            self._link(record),
        ]

    def of_speaker(self, record: SpeakerRecord) -> list[Any]:
        """Return the row of a speaker, with ``SPEAKER_COLUMNS``."""
        return [
            self._word(record.speaker),
            self._word(record.verdict),
            *(record.files, record.flagged, record.failed),
            self._findings(record.findings),
            None if (gate := record.gate) is None else [getattr(gate, name) for name in _GATE],
        ]

    def _findings(self, findings: tuple[Finding, ...]) -> list[list[Any]]:
        """Return findings, the one that is the verdict first."""
        severe = sorted(findings, key=lambda one: _SEVERITY[one.risk])
        return [[self._word(f.risk), visible(f.why), self._word(f.remedy)] for f in severe]

    def _word(self, text: str | None) -> int | None:
        if text is None:
            return None
        return self._words.setdefault(visible(text), len(self._words))

    def _link(self, record: ScreenRecord) -> str | None:
        if self._source is None:
            return None
        try:
            path = self._source.find(record.id).path
        except KeyError:  # the manifest no longer lists the file
            return None
        if not isinstance(path, Path) or archive_of(path) is not None:
            return None
        return link_to(path.absolute(), self._folder)


def _shown(value: Any) -> Any:
    return visible(value) if isinstance(value, str) else value
