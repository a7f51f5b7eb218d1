"""Write the records of a run to disk, whole or not at all, and read them back one by one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from nip_audio.core.files import check_regular
from nip_audio.errors import OutputError, ResumeError
from nip_audio.screening.records import ScreenRecord, SpeakerRecord

__all__ = ["RESULTS_NAME", "SPEAKERS_NAME", "Results"]

RESULTS_NAME = "results.jsonl"
SPEAKERS_NAME = "speakers.jsonl"

Write = Callable[[Sequence[ScreenRecord], SpeakerRecord | None], None]


@dataclass(frozen=True)
class Results:
    """Records of files and speakers in the output folder of a run.

    Attributes:
        folder: Output folder of the run.
    """

    folder: Path

    def files(self) -> Iterator[ScreenRecord]:
        """Read the records of the files, in the order of the run.

        Raises:
            ResumeError: If there are none, or a line is not a record.
        """
        for line in self._lines(RESULTS_NAME):
            yield ScreenRecord.from_line(line)

    def speakers(self) -> Iterator[SpeakerRecord]:
        """Read the records of the speakers, in the order of the run.

        Raises:
            ResumeError: If there are none, or a line is not a record.
        """
        for line in self._lines(SPEAKERS_NAME):
            yield SpeakerRecord.from_line(line)

    @contextmanager
    def writing(self) -> Iterator[Write]:
        """Yield a function that writes records; both files are replaced when the block ends.

        After an error the old files stay as they were.

        Raises:
            OutputError: If the files cannot be written.
        """
        parts = [self.folder / f".{name}.part" for name in (RESULTS_NAME, SPEAKERS_NAME)]
        try:
            with ExitStack() as stack:
                files, speakers = (
                    stack.enter_context(p.open("w", encoding="ascii")) for p in parts
                )

                def write(records: Sequence[ScreenRecord], speaker: SpeakerRecord | None) -> None:
                    files.writelines(record.to_line() + "\n" for record in records)
                    if speaker is not None:
                        speakers.write(speaker.to_line() + "\n")

                yield write
            for part, name in zip(parts, (RESULTS_NAME, SPEAKERS_NAME), strict=True):
                os.replace(part, self.folder / name)
        except OSError as err:
            raise OutputError(
                f"{self.folder} cannot be written ({err.strerror}); free some space and run the "
                "same command again: nothing is measured twice"
            ) from err

    def _lines(self, name: str) -> Iterator[str]:
        path = self.folder / name
        try:
            check_regular(path)
            with path.open(encoding="ascii", errors="replace") as file:
                yield from file
        except OSError as err:
            raise ResumeError(
                f"{path} cannot be read ({err.strerror}); screen into this folder first"
            ) from err
