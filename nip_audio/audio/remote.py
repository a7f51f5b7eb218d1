"""Audio on a URL: fetched to a bounded temporary file by fsspec, then read like any other."""

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
# what file systems call what changes with the content, the surest first
_MARKS = (
    *("ETag", "etag", "md5Hash", "Content-MD5", "generation"),
    *("mtime", "LastModified", "last_modified", "created"),
)


def is_url(place: str | Path) -> bool:
    """Tell a URL from a path: text that begins with a scheme and ``://``.

    Example:
        >>> is_url("s3://voices/ann.wav"), is_url("voices/ann.wav")
        (True, False)
    """
    return isinstance(place, str) and _URL.match(place) is not None


@contextmanager
def fetched(url: str, *, max_bytes: int) -> Iterator[Path]:
    """Fetch a file for as long as it is needed.

    Args:
        url: Of any scheme fsspec knows.
        max_bytes: A larger one is given up as soon as that is known.

    Yields:
        A temporary file.

    Raises:
        AudioError: ``missing``, ``unreadable`` or ``too_large``.
        MissingDependencyError: If fsspec, or what it needs for this scheme, is not installed.
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
        except Exception as err:  # noqa: BLE001 - every file system has errors of its own
            _refuse(url, err)
        if left < 0:
            raise AudioError(
                url,
                code="too_large",
                found=f"it has more than {max_bytes} bytes",
                remedy="split it, or convert it to flac",
            )
        yield Path(file.name)


def remote_stamp(url: str) -> str:
    """Return size and whatever else changes with the content, as far as the server says.

    Where it says nothing but the size, a file that was replaced by another of the same size goes
    unnoticed. A file that is not there has a stamp too.

    Raises:
        MissingDependencyError: As ``fetched``.
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
        raise MissingDependencyError(
            f"{url} is a URL, and fsspec is not installed: pip install 'nip-audio[remote]'"
        ) from err
    try:
        system, path = url_to_fs(url)
    except ImportError as err:
        raise MissingDependencyError(f"{url} needs another package: {err}") from err
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
