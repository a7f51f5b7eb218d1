"""What a run has measured so far: a file that only grows, and that one run at a time may write."""

from __future__ import annotations

import base64
import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from io import FileIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from nip_audio.core.strict_json import build_dataclass, load_json
from nip_audio.errors import OutputError, ResumeError
from nip_audio.screening.measured import FileFacts, MeasuredFile, Measurement
from nip_audio.screening.records import check_error

__all__ = ["JOURNAL_NAME", "LOCK_NAME", "Journal", "from_line", "locked", "to_line"]

JOURNAL_NAME = "measured.jsonl"
LOCK_NAME = "run.lock"

# what the model puts out is of single precision, so nothing is lost; the length is not
_TYPES = {"embedding": "<f4", "evidence": "<f8", "spectrum": "<f4"}
_NAME = "named"  # of a picture, whose other values are of the types above
_NEURONS = "<f4"
_VECTORS = ("neurons", "outputs")  # of what a trigger is looked for by


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold a folder for one run; the system lets go of it however the run ends.

    Raises:
        OutputError: If another run holds it, or nothing can be written there.
    """
    try:
        file = (out / LOCK_NAME).open("a")
    except OSError as err:
        raise OutputError(f"{out} cannot be written ({err.strerror}); use another --out") from err
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise OutputError(
                f"another run is writing to {out}; wait for it, or use another --out"
            ) from err
        except OSError as err:
            raise OutputError(
                f"{out} is on a file system without locks ({err.strerror}); use another --out"
            ) from err
        yield


class Journal:
    """Measured files, one JSON a line, found by their id.

    A line that a kill left unfinished is cut off when the journal is opened again. Of two lines of
    one file the later counts: it was measured again after it had changed. What is kept in memory is
    where each line starts, not what it says.
    """

    def __init__(self, path: Path) -> None:
        """Open a journal, an existing one at its end.

        Raises:
            ResumeError: If a line is no record of a measured file.
            OutputError: If it cannot be written.
        """
        self.path = path
        self._starts: dict[str, int] = {}
        self._stamps: dict[str, str] = {}
        try:
            # not buffered: what could not be written must not be tried again when it is closed
            self._end: FileIO = path.open("ab", buffering=0)
            self._file: BinaryIO = path.open("rb")
        except OSError as err:
            raise OutputError(f"{path} cannot be written ({err.strerror})") from err
        try:
            self._read()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Journal:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()
        self._end.close()

    def __len__(self) -> int:
        """Return how many files it knows."""
        return len(self._starts)

    def stamp(self, recording_id: str) -> str | None:
        """Return what a file was when it was measured; None if it was not."""
        return self._stamps.get(recording_id)

    def append(self, file: MeasuredFile) -> None:
        """Write one file's line, and hand it to the system before anything else is done.

        Raises:
            OutputError: If it cannot be written, as on a full disk; the next run cuts it off.
        """
        start = self._end.seek(0, 2)
        left = memoryview(to_line(file))
        try:
            while left:
                left = left[self._end.write(left) :]
        except OSError as err:
            raise OutputError(
                f"{self.path} cannot be written ({err.strerror}); make room and start the same "
                "command again: it goes on here"
            ) from err
        self._note(file, start)

    def read(self, recording_id: str) -> MeasuredFile:
        """Return what is known of a file.

        Raises:
            KeyError: If nothing is.
        """
        self._file.seek(self._starts[recording_id])
        return from_line(self._file.readline())

    def _note(self, file: MeasuredFile, start: int) -> None:
        self._starts[file.id] = start
        self._stamps[file.id] = file.stamp

    def _read(self) -> None:
        self._file.seek(0)
        start = 0
        while line := self._file.readline():
            if not line.endswith(b"\n"):
                self._end.truncate(start)
                return
            try:
                self._note(from_line(line), start)
            except ResumeError as err:
                raise ResumeError(f"{self.path}: {err}") from err
            start += len(line)


def to_line(file: MeasuredFile) -> bytes:
    """Return one line of JSON, its end included."""
    data = asdict(file)
    if file.measurement is not None:
        data["measurement"] = {
            name: value if name == _NAME else _pack(value, _TYPES[name])
            for name, value in vars(file.measurement).items()
        }
    if file.trigger is not None:
        for name in _VECTORS:
            data["trigger"][name] = _pack(getattr(file.trigger, name), _NEURONS)
    return json.dumps(data, ensure_ascii=True, allow_nan=False).encode() + b"\n"


def from_line(line: bytes) -> MeasuredFile:
    """Read what ``to_line`` wrote.

    Raises:
        ResumeError: If the line is something else.
    """
    try:
        data = load_json(line)
        if (packed := data["measurement"]) is not None:
            data["measurement"] = {
                name: value if name == _NAME else _unpack(value, _TYPES[name])
                for name, value in packed.items()
            }
        if (trigger := data["trigger"]) is not None:
            trigger |= {name: _unpack(trigger[name], _NEURONS) for name in _VECTORS}
        file = build_dataclass(MeasuredFile, data)
        if (file.error is None) != (file.facts is not None and file.measurement is not None):
            raise ValueError("neither measured nor failed")
        if isinstance(file.facts, FileFacts) != isinstance(file.measurement, Measurement):
            raise ValueError("measured as another kind of file than it is")
        check_error(file.error)
        if file.facts is not None:
            bytes.fromhex(file.facts.content_sha256)
        return file
    except (AttributeError, KeyError, TypeError, ValueError) as err:
        raise ResumeError(
            f"a line is no record of a measured file ({err}): {line[:60]!r}; use another --out"
        ) from err


def _pack(values: NDArray[np.float64], kind: str) -> str:
    return base64.b64encode(values.astype(kind).tobytes()).decode()


def _unpack(text: str, kind: str) -> NDArray[np.float64]:
    values = np.frombuffer(base64.b64decode(text, validate=True), dtype=kind).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a number is not finite")
    return values
