"""Keep the measurements of a run in an append-only file, from which an interrupted run resumes.

A lock lets only one run at a time write it.
"""

from __future__ import annotations

import base64
import fcntl
import json
import logging
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nip_audio.core.files import check_regular
from nip_audio.core.strict_json import build_dataclass, load_json
from nip_audio.errors import OutputError, ResumeError
from nip_audio.screening.measured import CRASHED, RETRY, MeasuredFile
from nip_audio.screening.records import check_error

__all__ = ["JOURNAL_NAME", "LOCK_NAME", "Journal", "from_line", "locked", "to_line"]

JOURNAL_NAME = "measured.jsonl"
LOCK_NAME = "run.lock"

# model outputs are single precision, so nothing is lost; the length in the evidence needs double
_TYPES = {
    **{"embedding": "<f4", "evidence": "<f8", "spectrum": "<f4"},
    **{"windows": "<f8", "channels": "<f8", "likeness": "<f8", "codes": "<u4"},
}
_NAME = "named"  # the text field of an image's measurement; the others have the types above
_NEURONS = "<f4"
_VECTORS = ("neurons", "outputs")  # array fields of TriggerEvidence

_BATCH, _BATCH_S = 64, 2.0  # lines, and seconds, after which lines are made durable

_log = logging.getLogger(__name__)


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Lock a folder for one run; the operating system releases the lock however the run ends.

    Raises:
        OutputError: If another run holds the lock, or the folder cannot be written.
    """
    try:
        check_regular(out / LOCK_NAME)
        file = (out / LOCK_NAME).open("a")
    except OSError as err:
        raise OutputError(f"{out} cannot be written ({err.strerror}); use another `out`") from err
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise OutputError(
                f"another run is writing to {out}; wait for it, or use another `out`"
            ) from err
        except OSError as err:
            raise OutputError(
                f"{out} is on a file system without locks ({err.strerror}); use another `out`"
            ) from err
        yield


class Journal:
    """Measured files by id, stored as one line each: a checksum, a space, and JSON.

    A line that a killed process left unfinished is cut off when the journal is opened again. A line
    whose checksum is wrong is left out, so that its file is measured again. If a file has two
    lines, it was measured again after a change, and the later line counts; a line without a
    measurement gives its file a new stamp. Only the start of each line and the stamp of its file
    are kept in memory. Every few lines are made durable together.
    """

    def __init__(self, path: Path) -> None:
        """Open a journal, new or existing.

        Raises:
            OutputError: If the journal cannot be written.
        """
        self.path = path
        self._starts: dict[str, int] = {}
        self._stamps: dict[str, str] = {}
        self._waiting = 0
        self._synced_s = time.monotonic()
        try:
            check_regular(path)
            # unbuffered: closing must not try again to write what could not be written before
            self._end: FileIO = path.open("ab", buffering=0)
            self._file: BinaryIO = path.open("rb")
        except OSError as err:
            raise OutputError(
                f"{path} cannot be written ({err.strerror}); use another `out`, or get permission "
                "to write there"
            ) from err
        try:
            self._read()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Journal:
        """Return the journal itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()
        self._end.close()

    def __len__(self) -> int:
        """Return the number of files in the journal."""
        return len(self._starts)

    def stamp(self, recording_id: str) -> str | None:
        """Return a file's stamp at the time of its measurement; None if it was not measured."""
        return self._stamps.get(recording_id)

    def crashed(self, recording_id: str) -> bool:
        """Tell whether a file crashed the process that measured it last."""
        if self.stamp(recording_id) != RETRY:
            return False
        error = self.read(recording_id).error
        return error is not None and error["code"] == CRASHED

    def append(self, file: MeasuredFile) -> None:
        """Append one file's line and hand it to the operating system before returning.

        Raises:
            OutputError: If it cannot be written, as on a full disk. The next run cuts off a line
                that was written in part.
        """
        self._starts[file.id] = self._append(to_line(file))
        self._stamps[file.id] = file.stamp

    def restamp(self, recording_id: str, stamp: str) -> None:
        """Give a measured file, which was moved or touched but not changed, its new stamp.

        Raises:
            OutputError: If it cannot be written, as on a full disk.
        """
        self._append(_checked({"id": recording_id, "stamp": stamp}))
        self._stamps[recording_id] = stamp

    def read(self, recording_id: str) -> MeasuredFile:
        """Return the latest line of a file.

        Raises:
            KeyError: If the journal has none.
            ResumeError: If the line was damaged after the journal was opened.
        """
        self._file.seek(self._starts[recording_id])
        return from_line(self._file.readline())

    def sync(self) -> None:
        """Make all lines durable, so that even a power cut does not undo them.

        Raises:
            OutputError: If that fails, as on a broken disk.
        """
        if self._waiting:
            try:
                os.fsync(self._end.fileno())
            except OSError as err:
                raise self._unwritable(err) from err
        self._waiting = 0
        self._synced_s = time.monotonic()

    def _append(self, line: bytes) -> int:
        """Append a line, and return where it starts."""
        start = self._end.seek(0, os.SEEK_END)
        left = memoryview(line)
        try:
            while left:
                left = left[self._end.write(left) :]
        except OSError as err:
            raise self._unwritable(err) from err
        self._waiting += 1
        if self._waiting >= _BATCH or time.monotonic() - self._synced_s > _BATCH_S:
            self.sync()
        return start

    def _unwritable(self, err: OSError) -> OutputError:
        return OutputError(
            f"{self.path} cannot be written ({err.strerror}); free some space and run the same "
            "command again: it resumes where it stopped"
        )

    def _read(self) -> None:
        self._file.seek(0)
        start = damaged = 0
        while line := self._file.readline():
            if not line.endswith(b"\n"):
                self._end.truncate(start)
                break
            try:
                self._note(line, start)
            except ResumeError:
                damaged += 1
            start += len(line)
        if damaged:
            _log.warning(
                "%s: %d lines are damaged, or of another version; their files are measured again",
                self.path,
                damaged,
            )

    def _note(self, line: bytes, start: int) -> None:
        data = _unchecked(line)
        if data.keys() == {"id", "stamp"}:
            if data["id"] in self._stamps:
                self._stamps[data["id"]] = data["stamp"]
            return
        file = _file_of(data, line)
        self._starts[file.id] = start
        self._stamps[file.id] = file.stamp


def to_line(file: MeasuredFile) -> bytes:
    """Return one line: a checksum, a space, JSON and a line break."""
    data = asdict(file)
    if file.measurement is not None:
        data["measurement"] = {
            name: value if name == _NAME else _pack(value, _TYPES[name])
            for name, value in vars(file.measurement).items()
        }
    if file.trigger is not None:
        for name in _VECTORS:
            data["trigger"][name] = _pack(getattr(file.trigger, name), _NEURONS)
    return _checked(data)


def from_line(line: bytes) -> MeasuredFile:
    """Read a line that ``to_line`` wrote.

    Raises:
        ResumeError: If the line was changed, or does not describe a measured file.
    """
    return _file_of(_unchecked(line), line)


def _file_of(data: dict[str, Any], line: bytes) -> MeasuredFile:
    try:
        data.setdefault("speech", None)  # earlier versions did not measure it
        if (packed := data["measurement"]) is not None:
            data["measurement"] = {
                name: value if name == _NAME else _unpack(value, _TYPES[name])
                for name, value in packed.items()
            }
        if (trigger := data["trigger"]) is not None:
            trigger |= {name: _unpack(trigger[name], _NEURONS) for name in _VECTORS}
        file = build_dataclass(MeasuredFile, data)
        if (file.error is None) != (file.facts is not None and file.measurement is not None):
            raise ValueError("expected either a measurement or an error")
        if (
            file.facts is not None
            and file.measurement is not None
            and (file.facts.tag != file.measurement.tag)
        ):
            raise ValueError("facts and measurement are of different modalities")
        check_error(file.error)
        if file.facts is not None:
            bytes.fromhex(file.facts.content_sha256)
        return file
    except (AttributeError, KeyError, TypeError, ValueError) as err:
        raise _no_line(line, err) from err


def _checked(data: dict[str, Any]) -> bytes:
    text = json.dumps(data, ensure_ascii=True, allow_nan=False).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _unchecked(line: bytes) -> dict[str, Any]:
    """Return the JSON object of a line after comparing its checksum.

    Raises:
        ResumeError: If the line is not what ``_checked`` wrote: any single flipped bit is noticed.
    """
    checksum, _, text = line.removesuffix(b"\n").partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        raise _no_line(line, "the checksum is wrong")
    try:
        data = load_json(text)
    except ValueError as err:
        raise _no_line(line, err) from err
    if not isinstance(data, dict):
        raise _no_line(line, "no object")
    return data


def _no_line(line: bytes, why: object) -> ResumeError:
    return ResumeError(
        f"got the line {line[:60]!r}, expected a measured file ({why}); run the same command again"
    )


def _pack(values: NDArray[np.float64], kind: str) -> str:
    return base64.b64encode(values.astype(kind).tobytes()).decode()


def _unpack(text: str, kind: str) -> NDArray[np.float64]:
    values = np.frombuffer(base64.b64decode(text, validate=True), dtype=kind).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a number is NaN or infinite")
    return values
