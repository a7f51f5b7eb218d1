"""A file as a file, before anything is made of what it holds."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

from nip_audio.errors import AudioError


def checked_hash(path: Path, *, max_bytes: int) -> str:
    """Return the SHA-256 of a readable, non-empty regular file of bounded size.

    Raises:
        AudioError: ``missing``, ``unreadable``, ``not_a_file``, ``too_large`` or ``empty``.
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
                found=f"it is {kind}, not a file",
                remedy="give the files in it" if folder else "give a file",
            )
        if status.st_size > max_bytes:
            raise AudioError(
                path,
                code="too_large",
                found=f"it has {status.st_size} bytes, more than {max_bytes}",
                remedy="split it, or convert it to flac",
            )
        digest = hashlib.sha256()
        size = 0
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
                size += len(piece)
    except FileNotFoundError as err:
        found = "it is a link to nothing" if path.is_symlink() else "it does not exist"
        raise AudioError(path, code="missing", found=found, remedy="check the path") from err
    except ValueError as err:  # a zero byte in the name, or what no file name can hold
        raise AudioError(
            path, code="missing", found=f"it is no file name ({err})", remedy="check the path"
        ) from err
    except OSError as err:
        raise AudioError(
            path,
            code="unreadable",
            found=f"it cannot be read ({err.strerror or err})",
            remedy="check its permissions and the link it may be",
        ) from err
    if size == 0:
        raise AudioError(path, code="empty", found="the file has 0 bytes", remedy="record it again")
    return digest.hexdigest()
