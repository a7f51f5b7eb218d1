"""Large files written piece by piece: whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nip_audio.errors import OutputError

__all__ = ["replacing"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a place to write to; it becomes ``path`` at the end, and after an error is removed.

    Raises:
        OutputError: If it cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        os.replace(part, path)
    except OSError as err:
        raise OutputError(
            f"{path} cannot be written ({err.strerror}); make room, or check who may write there"
        ) from err
    finally:
        part.unlink(missing_ok=True)
