"""Open files that a stranger may have placed: what never ends or never answers is not opened.

Reading a named pipe waits for its writer for ever, and a device such as ``/dev/zero`` has no end.
The errors are ``OSError``, as those of the system, so that whoever opens a file handles all alike.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "LARGEST_JSON",
    "LARGEST_WEIGHTS",
    "UnfitFileError",
    "check_regular",
    "open_regular",
    "read_regular",
]

LARGEST_JSON = 1 << 28
"""Largest description that is read, in bytes."""

LARGEST_WEIGHTS = 4 << 30
"""Largest file of weights that is read, in bytes; larger ones are no speaker models."""


class UnfitFileError(OSError):
    """A file is of a kind or size that is not read; ``strerror`` says which."""

    def __str__(self) -> str:
        """Return what is wrong, without the number that errors of the system have."""
        return str(self.strerror)


def check_regular(path: Path) -> None:
    """Check that a path is a regular file, or does not exist, without opening it.

    Raises:
        OSError: If it is a folder, a named pipe, a socket or a device, or cannot be looked at.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise UnfitFileError(0, _kind(mode), str(path))


def open_regular(path: Path, *, most: int | None = None) -> BinaryIO:
    """Open a regular file for reading.

    Args:
        path: File to open.
        most: Largest size in bytes; None for any.

    Raises:
        OSError: If it is missing, unreadable, of another kind, or larger.
    """
    check_regular(path)
    # whatever took its place since is not waited for
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise UnfitFileError(0, _kind(status.st_mode), str(path))
    if most is not None and status.st_size > most:
        os.close(handle)
        raise UnfitFileError(0, _large(status.st_size, most), str(path))
    return os.fdopen(handle, "rb")


def read_regular(path: Path, *, most: int) -> bytes:
    """Return the content of a regular file.

    Args:
        path: File to read.
        most: Largest size in bytes.

    Raises:
        OSError: If it is missing, unreadable, of another kind, or larger.
    """
    with open_regular(path, most=most) as file:
        data = file.read(most + 1)
    if len(data) > most:  # it grew
        raise UnfitFileError(0, _large(len(data), most), str(path))
    return data


def _kind(mode: int) -> str:
    kind = "a folder" if stat.S_ISDIR(mode) else "a device, pipe or socket"
    return f"it is {kind}, expected a file"


def _large(size: int, most: int) -> str:
    return f"it has {size} bytes, at most {most} are read"
