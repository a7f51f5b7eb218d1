"""Tell whether a file is still the one that was measured: cheap marks first, then its content."""

from __future__ import annotations

import os
import re
from pathlib import Path

from nip_audio.audio.archives import archive_of, open_archive
from nip_audio.audio.manifest import Recording
from nip_audio.audio.opening import content_sha256, opened
from nip_audio.audio.remote import is_url, remote_stamp
from nip_audio.errors import FileError, InputError

__all__ = ["has_content", "may_be_unchanged", "same_file", "stamp_of"]

_LOCAL = re.compile(r"(\d+:\d+):\d+:\d+(@.*)?")
_MOST_BYTES = 1 << 32


def stamp_of(recording: Recording) -> str:
    """Return a text that changes whenever the file changes, without reading the file.

    It holds the file's size, the times of its last change and of the last change of its entry, its
    inode (for a URL, its ``remote_stamp``; for a member of an archive, its own size and all else of
    the archive), and the part and channel of it that are used. Whoever replaces a file can choose
    its size and modification time, but not the other two. A missing file, or one behind a link out
    of the folder, has a stamp too.
    """
    if recording.leads_out:
        return "outside"
    part = "" if recording.span is None else str(recording.span)
    part += "" if recording.channel is None else f"#{recording.channel}"
    part = f"@{part}" if part else ""
    if is_url(recording.path):
        return remote_stamp(str(recording.path)) + part
    try:
        size, status = _size_and_status(Path(recording.path))
    except (OSError, InputError) as err:
        return f"none:{getattr(err, 'errno', 'archive')}"
    marks = (size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    return ":".join(map(str, marks)) + part


def _size_and_status(path: Path) -> tuple[int, os.stat_result]:
    """Return the size of a file, and where and when it was written; of a member, its archive."""
    try:
        status = os.stat(path)
        return status.st_size, status
    except NotADirectoryError:
        within = archive_of(path)
        member = within and open_archive(within[0]).find(within[1])
        if not within or not member:
            raise
        return member.size, os.stat(within[0])


def same_file(earlier: str, now: str, *, trust_mtime: bool = False) -> bool:
    """Tell whether two stamps of a file show by themselves that it did not change.

    Args:
        earlier: Stamp at the time of the measurement.
        now: Stamp at present.
        trust_mtime: Accept equal sizes and modification times, which anyone can forge, as proof.

    Example:
        >>> same_file("9:1:1:5", "9:1:2:5"), same_file("9:1:1:5", "9:1:2:5", trust_mtime=True)
        (False, True)
    """
    if trust_mtime:
        return _forgeable(earlier) == _forgeable(now)
    if earlier != now:
        return False
    marks, _, _ = now.partition("@")
    return not marks.endswith(":")  # a server that reports the size only


def may_be_unchanged(earlier: str, now: str) -> bool:
    """Tell whether a file may be unchanged though its stamps differ: its size and part are equal.

    Example:
        >>> may_be_unchanged("9:1:1:5", "9:7:7:6"), may_be_unchanged("9:1:1:5", "8:7:7:6")
        (True, False)
    """
    return _size_and_part(earlier) == _size_and_part(now)


def has_content(recording: Recording, sha256: str) -> bool:
    """Read a file and tell whether it has this content; one that cannot be read has not."""
    try:
        with opened(recording.path, max_bytes=_MOST_BYTES) as file:
            return content_sha256(file) == sha256
    except (FileError, OSError):
        return False


def _forgeable(stamp: str) -> str:
    """Return what a local file's stamp holds of size, modification time and part."""
    local = _LOCAL.fullmatch(stamp)
    return stamp if local is None else f"{local[1]}{local[2] or ''}"


def _size_and_part(stamp: str) -> tuple[str, str]:
    marks, _, part = stamp.partition("@")
    return marks.partition(":")[0], part
