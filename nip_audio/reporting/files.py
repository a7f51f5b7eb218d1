"""Write large files piece by piece, but whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nip_audio.errors import OutputError

__all__ = ["replacing"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path`` when the block ends without an error.

    Raises:
        OutputError: If the file cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        os.replace(part, path)
    except OSError as err:
        raise OutputError(
            f"{path} cannot be written ({err.strerror}); free some space, or check the permissions "
            "of its folder"
        ) from err
    finally:
        part.unlink(missing_ok=True)
