"""Open a recording where it is: a file, a member of an archive, or behind a URL."""

from __future__ import annotations

import hashlib
import io
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, cast

from nip_audio.audio._layout import size_of
from nip_audio.audio.archives import archive_of, read_member
from nip_audio.audio.remote import fetched, is_url
from nip_audio.errors import AudioError

__all__ = ["content_sha256", "opened"]


@contextmanager
def opened(place: str | Path, *, max_bytes: int) -> Iterator[io.BufferedReader]:
    """Open a recording that is readable, regular, not empty and not too large.

    Args:
        place: File, member of an archive (``voices.zip/ann/a.wav``), or URL as text.
        max_bytes: Largest allowed size in bytes.

    Yields:
        The open file, at its start. A member of an archive is in memory.

    Raises:
        AudioError: With code ``missing``, ``unreadable``, ``not_a_file``, ``too_large`` or
            ``empty``, or a code of ``archives.read_member``.
        MissingDependencyError: If it is a URL and the package that fetches it is not installed.
    """
    if is_url(place):
        with fetched(str(place), max_bytes=max_bytes) as path, path.open("rb") as file:
            _require_content(place, size_of(file))
            yield file
        return
    path = Path(place)
    if (within := _within(path)) is not None:
        content = read_member(path, *within, max_bytes=max_bytes)
        file = io.BufferedReader(cast("io.RawIOBase", content))
        _require_content(path, size_of(file))
        yield file
        return
    with _open_file(path, max_bytes) as file:
        try:
            yield file
        except OSError as err:
            raise _unreadable(path, err) from err


def content_sha256(file: io.BufferedReader) -> str:
    """Return the SHA-256 of an open file, and go to its start."""
    digest = hashlib.sha256()
    while piece := file.read(1 << 20):
        digest.update(piece)
    file.seek(0)
    return digest.hexdigest()


def _within(path: Path) -> tuple[Path, str] | None:
    """Return the archive that holds a path, and the name in it."""
    try:
        path.lstat()
    except NotADirectoryError:  # a parent is a file
        return archive_of(path)
    except (OSError, ValueError):
        return None
    return None


def _open_file(path: Path, max_bytes: int) -> io.BufferedReader:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            _refuse_kind(path, folder=stat.S_ISDIR(status.st_mode))
        if status.st_size > max_bytes:
            raise AudioError(
                path,
                code="too_large",
                found=f"it has {status.st_size} bytes, at most {max_bytes} are allowed",
                remedy="split it, or convert it to FLAC",
            )
        _require_content(path, status.st_size)
        return path.open("rb")
    except FileNotFoundError as err:
        found = "it is a broken link" if path.is_symlink() else "it does not exist"
        raise AudioError(path, code="missing", found=found, remedy="check the path") from err
    except ValueError as err:  # a zero byte or another character that no file name can hold
        raise AudioError(
            path,
            code="missing",
            found=f"it is not a valid file name ({err})",
            remedy="check the path",
        ) from err
    except OSError as err:
        raise _unreadable(path, err) from err


def _unreadable(path: Path, err: OSError) -> AudioError:
    return AudioError(
        path,
        code="unreadable",
        found=f"it cannot be read ({err.strerror or err})",
        remedy="check its permissions and, if it is a link, its target",
    )


def _refuse_kind(path: Path, *, folder: bool) -> NoReturn:
    kind = "a folder" if folder else "a device, pipe or socket"
    raise AudioError(
        path,
        code="not_a_file",
        found=f"it is {kind}, expected a file",
        remedy="pass the files in it" if folder else "pass a file",
    )


def _require_content(place: str | Path, size: int) -> None:
    if size == 0:
        raise AudioError(
            place, code="empty", found="the file has 0 bytes", remedy="record it again"
        )
