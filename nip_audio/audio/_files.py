"""Check that a path is a readable regular file before its content is decoded."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

from nip_audio.errors import AudioError


def checked_hash(path: Path, *, max_bytes: int) -> str:
    """Return the SHA-256 of a file after checking that it is readable, regular and not too large.

    Args:
        path: File to check.
        max_bytes: Largest allowed size in bytes.

    Raises:
        AudioError: With code ``missing``, ``unreadable``, ``not_a_file``, ``too_large`` or
            ``empty``.
    """
    try:
        status = path.stat()
        mode = status.st_mode
        if not stat.S_ISREG(mode):
            folder = stat.S_ISDIR(mode)
            kind = "a folder" if folder else "a device, pipe or socket"
            raise AudioError(
                path,
                code="not_a_file",
                found=f"it is {kind}, expected a file",
                remedy="pass the files in it" if folder else "pass a file",
            )
        if status.st_size > max_bytes:
            raise AudioError(
                path,
                code="too_large",
                found=f"it has {status.st_size} bytes, at most {max_bytes} are allowed",
                remedy="split it, or convert it to FLAC",
            )
        digest = hashlib.sha256()
        size = 0
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
                size += len(piece)
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
        raise AudioError(
            path,
            code="unreadable",
            found=f"it cannot be read ({err.strerror or err})",
            remedy="check its permissions and, if it is a link, its target",
        ) from err
    if size == 0:
        raise AudioError(path, code="empty", found="the file has 0 bytes", remedy="record it again")
    return digest.hexdigest()
