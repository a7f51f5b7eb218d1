"""Publish the records of a run, whole or not at all, and read back only what belongs together.

Three files are replaced one after the other; summary.json is the last, and holds the SHA-256 of the
other two. Whoever reads the records compares them with it, so records of one run are never read
with the summary of another.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from nip_audio.core.files import open_regular
from nip_audio.core.state import sync_folder
from nip_audio.errors import OutputError, ResumeError
from nip_audio.screening.records import ScreenRecord, SpeakerRecord

__all__ = [
    "PUBLISHED",
    "RESULTS_NAME",
    "SPEAKERS_NAME",
    "SUMMARY_NAME",
    "Publication",
    "Results",
    "publishing",
]

RESULTS_NAME = "results.jsonl"
SPEAKERS_NAME = "speakers.jsonl"
SUMMARY_NAME = "summary.json"

PUBLISHED = "published"
"""Field of summary.json with the SHA-256 of each other file."""

_RECORDS = (RESULTS_NAME, SPEAKERS_NAME)


@dataclass(frozen=True)
class Results:
    """Records of files and speakers in the output folder of a run.

    Attributes:
        folder: Output folder of the run.
        sha256: SHA-256 of results.jsonl and of speakers.jsonl, by name, as summary.json has them.
    """

    folder: Path
    sha256: Mapping[str, str]

    def files(self) -> Iterator[ScreenRecord]:
        """Read the records of the files, in the order of the run.

        Raises:
            ResumeError: If there are none, they are not those that were published, or a line is not
                a record.
        """
        for line in self._lines(RESULTS_NAME):
            yield ScreenRecord.from_line(line)

    def speakers(self) -> Iterator[SpeakerRecord]:
        """Read the records of the speakers, in the order of the run.

        Raises:
            ResumeError: As for ``files``.
        """
        for line in self._lines(SPEAKERS_NAME):
            yield SpeakerRecord.from_line(line)

    def _lines(self, name: str) -> Iterator[str]:
        """Yield the lines of a file after checking all of it; it may be replaced meanwhile."""
        path = self.folder / name
        try:
            with open_regular(path) as file:
                digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]
                if digest.hexdigest() != self.sha256.get(name):
                    raise ResumeError(
                        f"{path} is not the file that {SUMMARY_NAME} was written with: a run is "
                        "writing there, or one was killed there, or the file was changed; wait for "
                        "the run to end, or screen into this folder again"
                    )
                file.seek(0)
                for line in file:
                    yield line.decode("ascii", errors="replace")
        except OSError as err:
            raise ResumeError(
                f"{path} cannot be read ({err.strerror}); screen into this folder first"
            ) from err


class Publication:
    """Records that are being written beside those that are still published."""

    def __init__(self, folder: Path, files: BinaryIO, speakers: BinaryIO) -> None:
        """Start with no record."""
        self.folder = folder
        self._files = {RESULTS_NAME: files, SPEAKERS_NAME: speakers}
        self._digests = {name: hashlib.sha256() for name in _RECORDS}

    def write(self, records: Sequence[ScreenRecord], speaker: SpeakerRecord | None) -> None:
        """Write the records of one speaker, or of one file without a speaker."""
        self._write(RESULTS_NAME, "".join(record.to_line() + "\n" for record in records))
        if speaker is not None:
            self._write(SPEAKERS_NAME, speaker.to_line() + "\n")

    def finish(self, summary: Mapping[str, Any]) -> Results:
        """Write the summary, and replace what was published before by all three files."""
        sha256 = {name: digest.hexdigest() for name, digest in self._digests.items()}
        text = json.dumps({**summary, PUBLISHED: sha256}, indent=2, allow_nan=False) + "\n"
        for file in self._files.values():
            _flush_to_disk(file)
        with _part(self.folder, SUMMARY_NAME).open("wb") as file:
            file.write(text.encode())
            _flush_to_disk(file)
        for name in (*_RECORDS, SUMMARY_NAME):
            os.replace(_part(self.folder, name), self.folder / name)
        sync_folder(self.folder)
        return Results(self.folder, sha256)

    def _write(self, name: str, text: str) -> None:
        data = text.encode("ascii")
        self._digests[name].update(data)
        self._files[name].write(data)


@contextmanager
def publishing(folder: Path) -> Iterator[Publication]:
    """Open a publication; without its ``finish`` the files stay as they were.

    Raises:
        OutputError: If the files cannot be written.
    """
    try:
        with ExitStack() as stack:
            yield Publication(
                folder,
                *(stack.enter_context(_part(folder, name).open("wb")) for name in _RECORDS),
            )
    except OSError as err:
        raise OutputError(
            f"{folder} cannot be written ({err.strerror}); free some space and run the same "
            "command again: nothing is measured twice"
        ) from err


def _flush_to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _part(folder: Path, name: str) -> Path:
    return folder / f".{name}.part"
