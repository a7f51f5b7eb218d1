"""Keep a result in a file, and read it instead of making it again.

The caller names the file after everything that the result depends on, as
``nip_audio.core.fingerprint`` hashes it: content, model, settings, seed, and a version that is
raised when the same inputs give another result.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from nip_audio.core.state import make_folder, write_atomic
from nip_audio.errors import StateError

__all__ = ["keep_or_make", "keep_vector"]

T = TypeVar("T")


def keep_or_make(
    path: Path,
    make: Callable[[], T],
    *,
    dump: Callable[[T], bytes],
    load: Callable[[bytes], T | None],
) -> T:
    """Return the result that a file keeps, or make it and keep it.

    The file is written whole or not at all, so an interrupted run loses only the result that it was
    working on, and several processes may share a folder.

    Args:
        path: File of the result; its folder is created.
        make: Makes the result; called only if no file keeps it.
        dump: Encodes the result.
        load: Decodes what ``dump`` returned; None if it is the result of something else, which is
            then replaced.

    Raises:
        StateError: If the file cannot be read or decoded.
        OutputError: If the file cannot be written.
    """
    try:
        kept = load(path.read_bytes())
    except FileNotFoundError:
        kept = None
    except (OSError, ValueError, LookupError, TypeError, EOFError, SafetensorError) as err:
        raise StateError(f"{path} is damaged ({err!r}); remove it") from err
    if kept is not None:
        return kept
    result = make()
    make_folder(path.parent)
    write_atomic(path, dump(result), force=True)
    return result


def keep_vector(path: Path, make: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the finite vector (D,) that a .npy file keeps, or make and keep it.

    Raises:
        StateError: If the file cannot be read, or the vector is none or not finite.
        OutputError: If the file cannot be written.
    """

    def made() -> NDArray[np.float32]:
        vector = make()
        if vector.ndim != 1 or not np.isfinite(vector).all():
            raise StateError(f"what {path} is to keep is {vector.shape} or not finite")
        return vector

    return keep_or_make(path, made, dump=_dump, load=_load)


def _dump(vector: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, vector, allow_pickle=False)
    return buffer.getvalue()


def _load(data: bytes) -> NDArray[np.float32]:
    vector: NDArray[np.float32] = np.load(io.BytesIO(data), allow_pickle=False)
    if vector.ndim != 1 or not np.isfinite(vector).all():
        raise ValueError("no finite vector")
    return vector
