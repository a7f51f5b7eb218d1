"""Fetch audio from a URL with fsspec into a temporary file of bounded size."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from nip_audio.errors import AudioError, MissingDependencyError

__all__ = ["fetched", "is_url", "remote_stamp"]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PIECE = 1 << 20
# fields that change with the content, by file system; the most reliable first
_MARKS = (
    *("ETag", "etag", "md5Hash", "Content-MD5", "generation"),
    *("mtime", "LastModified", "last_modified", "created"),
)


def is_url(place: str | Path) -> bool:
    """Tell whether a place is a URL: text that begins with a scheme and ``://``.

    Example:
        >>> is_url("s3://voices/ann.wav"), is_url("voices/ann.wav")
        (True, False)
    """
    return isinstance(place, str) and _URL.match(place) is not None


@contextmanager
def fetched(url: str, *, max_bytes: int) -> Iterator[Path]:
    """Fetch a file and keep it while the context is open.

    Args:
        url: URL with any scheme that fsspec supports.
        max_bytes: Largest allowed size; fetching stops as soon as the file exceeds it.

    Yields:
        Path of the temporary file.

    Raises:
        AudioError: With code ``missing``, ``unreadable`` or ``too_large``.
        MissingDependencyError: If fsspec, or the package it needs for this scheme, is missing.
    """
    with tempfile.NamedTemporaryFile(prefix="nip-audio.") as file:
        try:
            system, path = _find(url)
            left = max_bytes
            with system.open(path, "rb") as source:
                while left >= 0 and (piece := source.read(min(_PIECE, left + 1))):
                    file.write(piece)
                    left -= len(piece)
            file.flush()
        except MissingDependencyError:
            raise
        except Exception as err:  # noqa: BLE001 - each file system raises its own errors
            _refuse(url, err)
        if left < 0:
            raise AudioError(
                url,
                code="too_large",
                found=f"it has more than the {max_bytes} bytes allowed",
                remedy="split it, or convert it to FLAC",
            )
        yield Path(file.name)


def remote_stamp(url: str) -> str:
    """Return a text that changes with a remote file's content, from what the server reports.

    If the server reports the size only, a replacement of the same size goes unnoticed. A missing
    file has a stamp too.

    Args:
        url: URL with any scheme that fsspec supports.

    Raises:
        MissingDependencyError: If fsspec, or the package it needs for this scheme, is missing.
    """
    try:
        system, path = _find(url)
        info = system.info(path)
    except MissingDependencyError:
        raise
    except Exception as err:  # noqa: BLE001 - as above
        return f"none:{type(err).__name__}"
    mark = next((str(info[name]) for name in _MARKS if info.get(name) is not None), "")
    return f"{info.get('size')}:{mark}"


def _find(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as err:
        raise MissingDependencyError(f"{url} is a URL: that needs fsspec", extra="remote") from err
    try:
        system, path = url_to_fs(url)
    except ImportError as err:
        raise MissingDependencyError(f"{url} needs a package ({err})") from err
    return system, str(path)


def _refuse(url: str, err: Exception) -> NoReturn:
    if isinstance(err, FileNotFoundError):
        raise AudioError(
            url, code="missing", found="it does not exist", remedy="check the URL"
        ) from err
    reason = " ".join(str(err).split())[:200] or type(err).__name__
    raise AudioError(
        url,
        code="unreadable",
        found=f"it cannot be fetched ({reason})",
        remedy="check the URL and your credentials, and try again",
    ) from err
