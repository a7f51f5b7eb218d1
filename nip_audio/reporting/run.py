"""Read a finished screening from its folder: settings, summary and records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nip_audio.core.files import LARGEST_JSON, read_regular
from nip_audio.core.near import suggest_names
from nip_audio.core.strict_json import load_json
from nip_audio.errors import InputError, ResumeError
from nip_audio.models.modalities import reader_of_json
from nip_audio.screening.kind import Kind
from nip_audio.screening.modalities import kind_of
from nip_audio.screening.pipeline import RUN_NAME
from nip_audio.screening.records import ScreenRecord, SpeakerRecord
from nip_audio.screening.results import PUBLISHED, SUMMARY_NAME, Results

__all__ = ["ScreenedRun"]

_NEEDED = ("model", "model_id", "seed", "read", "calibration", "files", "verdicts", PUBLISHED)


@dataclass(frozen=True)
class ScreenedRun:
    """A finished screening.

    Attributes:
        folder: Output folder of the run.
        source: Folder or manifest that was screened.
        summary: Content of summary.json.
    """

    folder: Path
    source: Path
    summary: dict[str, Any]

    @staticmethod
    def open(folder: Path) -> ScreenedRun:
        """Open the output folder of a run by reading run.json and summary.json.

        Raises:
            ResumeError: If the folder holds no finished run.
        """
        run, summary = (_read(folder / name) for name in (RUN_NAME, SUMMARY_NAME))
        missing = [key for key in _NEEDED if key not in summary]
        for key in {PUBLISHED, "verdicts"} & summary.keys():
            if not isinstance(summary[key], dict):
                missing.append(key)
        if missing or "source" not in run:
            raise ResumeError(
                f"{folder} lacks {', '.join(missing) or 'its source'}, expected a finished run; "
                "screen into it again"
            )
        return ScreenedRun(folder, Path(run["source"]), summary)

    @property
    def kind(self) -> Kind:
        """Modality of the files that were screened.

        Raises:
            ResumeError: If summary.json does not say how they were read.
        """
        try:
            return kind_of(reader_of_json(self.summary["read"]))
        except TypeError as err:
            raise ResumeError(
                f"{self.folder} does not say how its files were read ({err}); screen into it again"
            ) from err

    @property
    def results(self) -> Results:
        """Reader of the records that the summary was written with."""
        return Results(self.folder, self.summary[PUBLISHED])

    @property
    def verdicts(self) -> dict[str, int]:
        """Number of files for each verdict."""
        return dict(self.summary["verdicts"])

    @property
    def drawable(self) -> int:
        """Number of files that a report can show in detail: all but clean and unreadable ones."""
        return sum(n for verdict, n in self.verdicts.items() if verdict not in ("clean", "error"))

    def flagged(self) -> list[ScreenRecord]:
        """Return the records that need a person's attention: all but clean ones.

        Those that could not be judged, as ``out_of_domain`` or ``error``, are among them.

        Raises:
            ResumeError: If ``files`` raises it.
        """
        return [record for record in self.files() if record.verdict != "clean"]

    def record(self, file: str) -> ScreenRecord:
        """Return the record of one file.

        Args:
            file: Id of the file: its path below the screened folder, or its id in the manifest.

        Raises:
            InputError: If no file has this id.
            ResumeError: If ``files`` raises it.
        """
        ids = []
        for record in self.files():
            if record.id == file:
                return record
            ids.append(record.id)
        raise InputError(f"no file {file!r} was screened; {suggest_names(file, ids)}")

    def files(self) -> Iterator[ScreenRecord]:
        """Read the records of the files one by one.

        Raises:
            ResumeError: If the records are not those that the summary was written with, as while
                another run is writing, a line is not a record, or the summary has other counts.
        """
        counts: Counter[str] = Counter()
        for record in self.results.files():
            counts[record.verdict] += 1
            yield record
        if dict(counts) != self.summary["verdicts"] or counts.total() != self.summary["files"]:
            raise ResumeError(
                f"{self.folder} has {counts.total()} records ({_numbers(counts)}), its summary "
                f"counts {self.summary['files']} ({_numbers(self.summary['verdicts'])}), expected "
                "the same; screen into it again"
            )

    def speakers(self) -> Iterator[SpeakerRecord]:
        """Read the records of the speakers one by one.

        Raises:
            ResumeError: As for ``files``.
        """
        return self.results.speakers()


def _numbers(verdicts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(verdicts.items()))


def _read(path: Path) -> dict[str, Any]:
    try:
        data = load_json(read_regular(path, most=LARGEST_JSON))
    except OSError as err:
        raise ResumeError(
            f"{path} cannot be read ({err.strerror}); expected a folder that nip-audio screen wrote"
        ) from err
    except ValueError as err:
        raise ResumeError(f"{path} is damaged ({err}); screen into this folder again") from err
    if not isinstance(data, dict):
        raise ResumeError(f"{path} is damaged (no object); screen into this folder again")
    return data
