"""Save and load fitted state, such as a calibration, in one file that is bound to its model.

The file is safetensors with a JSON header, so reading it runs no code. A hash binds it to the model
it was fitted for, another one detects damage.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nip_audio.core.files import open_regular
from nip_audio.core.finite import require_finite_values
from nip_audio.core.strict_json import load_json
from nip_audio.errors import HashMismatchError, NipAudioError, OutputError, StateError

__all__ = [
    "State",
    "file_sha256",
    "load_state",
    "make_folder",
    "reading_state",
    "require_new",
    "save_state",
    "complete_lines",
    "leftovers_of",
    "sync_folder",
    "write_atomic",
]

FORMAT_VERSION = 1


@dataclass(frozen=True)
class State:
    """Fitted tensors and settings, and the model that they belong to.

    Attributes:
        kind: Kind of state, such as ``"calibration"``; loading checks it.
        model_id: Hash of the model that the state was fitted for.
        tensors: Fitted tensors by name.
        meta: Settings as JSON values.
    """

    kind: str
    model_id: str
    tensors: Mapping[str, Tensor]
    meta: Mapping[str, Any]


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256 in hex; the file is read in pieces."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def complete_lines(path: Path, *, repair: bool) -> list[bytes]:
    """Read the complete lines of a file that is written line by line.

    A process that was killed may have left the last line unfinished; that line is left out.

    Args:
        path: File to read; a missing file has no lines.
        repair: Cut an unfinished last line off the file, so that writing can go on. Leave it false
            when only reading: another process may still be writing that line.

    Returns:
        The complete lines, without line ends.

    Raises:
        OSError: If it is no regular file, or cannot be read.
    """
    if not path.exists():
        return []
    with open_regular(path) as file:
        data = file.read()
    whole = data.rfind(b"\n") + 1
    if repair and whole < len(data):
        os.truncate(path, whole)
    return data[:whole].splitlines()


def require_new(path: Path, *, force: bool = False) -> None:
    """Check that a file can be written, before the work whose result goes there.

    Args:
        path: File to be written.
        force: Allow an existing file to be overwritten.

    Raises:
        OutputError: If the file exists and ``force`` is false, if ``path`` is a folder, a device
            or a pipe, or if its parent folder is missing.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder, expected a file name; name a file inside it")
    if path.exists() and not path.is_file():
        # a file that is written whole replaces what has its name: even /dev/null, for root
        raise OutputError(f"{path} is a device, a pipe or a socket, expected a file; name a file")
    if path.exists() and not force:
        raise OutputError(
            f"{path} exists already; pass `force=True` to overwrite it, or choose another name"
        )
    if not path.parent.is_dir():
        raise OutputError(
            f"folder {path.parent} does not exist; create it, or choose another folder"
        )


def make_folder(folder: Path) -> None:
    """Create a folder for results, with its parent folders, unless it exists.

    Raises:
        OutputError: If the folder cannot be created, or is a file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise OutputError(
            f"folder {folder} cannot be created ({err.strerror}); choose another `out`"
        ) from err


def write_atomic(path: Path, data: bytes, *, force: bool = False) -> None:
    """Write a whole file, or nothing if writing fails.

    Args:
        path: File to write; its folder must exist.
        data: Content of the file.
        force: Overwrite an existing file.

    Raises:
        OutputError: If the file exists and ``force`` is false, or its folder is missing or cannot
            be written to.
    """
    require_new(path, force=force)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:30]}.")
    except OSError as err:
        raise OutputError(
            f"{path} cannot be written ({err.strerror}); choose another folder"
        ) from err
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # or the name may outlive a power cut, and the content not
        # mkstemp creates private files; a result gets the permissions of any other new file
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
        sync_folder(path.parent)
    except OSError as err:
        Path(name).unlink(missing_ok=True)
        raise OutputError(
            f"{path} cannot be written ({err.strerror or err}); free space there, or choose "
            "another folder"
        ) from err
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where its file system can do that."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # it may be written to but not listed
    try:
        os.fsync(handle)
    except OSError as err:
        if err.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def leftovers_of(folder: Path, names: Iterable[str]) -> list[Path]:
    """Return what a killed process left of files that it was writing in a folder.

    They are the temporary files of ``write_atomic``, and those named ``.NAME.part``.
    """
    starts = tuple(f".{name}." for name in names)
    return [entry for entry in folder.iterdir() if entry.name.startswith(starts)]


def _content_sha256(tensors: Mapping[str, Tensor], description: str) -> str:
    digest = hashlib.sha256(description.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        if tensor.numel():
            # flat first, since a tensor without axes cannot be viewed as bytes; not copied, since a
            # tensor mapped from a file may be larger than the memory
            digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_state(path: Path, state: State, *, force: bool = False) -> None:
    """Write a state to a file, whole or not at all.

    Args:
        path: File to write; its folder must exist.
        state: State to save.
        force: Overwrite an existing file.

    Raises:
        OutputError: If the file exists and ``force`` is false, or it cannot be written.
    """
    tensors = {name: t.detach().cpu().contiguous() for name, t in state.tensors.items()}
    description = json.dumps(
        {
            "format_version": FORMAT_VERSION,
            "kind": state.kind,
            "model_id": state.model_id,
            "meta": dict(state.meta),
        },
        sort_keys=True,
        allow_nan=False,
    )
    header = {"state": description, "sha256": _content_sha256(tensors, description)}
    write_atomic(path, save(tensors, metadata=header), force=force)


@contextmanager
def reading_state(path: Path) -> Iterator[None]:
    """Turn errors from parsing a state's content into one clear ``StateError``.

    The hash in the file detects accidental damage only: whoever forges a file can also hash it. So
    its content may be missing, or have any type or shape.

    Args:
        path: File that the state came from, for the message.

    Raises:
        StateError: If the code inside the context meets missing or malformed content.
    """
    try:
        yield
    except NipAudioError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as err:
        raise StateError(f"{path} is damaged ({err!r}); create it again") from err
    except RuntimeError as err:  # raised by torch for a wrong shape
        raise StateError(f"{path} is damaged ({err}); create it again") from err


def load_state(path: Path, *, kind: str | Sequence[str], model_id: str | None = None) -> State:
    """Read a state and check that it is undamaged and of the expected kind.

    The tensors are mapped from the file: they are read once for the check, then stay in memory only
    while there is room. So the file must not be changed in place while they are in use;
    ``save_state`` never does that, it replaces the file.

    Args:
        path: File that ``save_state`` wrote.
        kind: Expected kind, or several accepted kinds.
        model_id: Hash of the model to use it with; None skips this check.

    Raises:
        StateError: If the file is missing, is not a state, is of another kind, version or model, or
            holds values that are NaN or infinite.
        HashMismatchError: If the content was changed after it was written.

    A tensor that is not finite is refused: a comparison with NaN is never true, so that a detector
    that holds one would flag nothing.
    """
    expected = (kind,) if isinstance(kind, str) else tuple(kind)
    what = " or ".join(expected)
    try:
        with open_regular(path):  # its error says why, unlike that of the mapping
            pass
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        description = header["state"]
        content = load_json(description)
        kinds = {"format_version": int, "kind": str, "model_id": str, "meta": dict}
        if not all(isinstance(content[name], wanted) for name, wanted in kinds.items()):
            raise ValueError("a description of something else")
    except OSError as err:
        raise StateError(f"{path} cannot be read ({err.strerror}); check the path") from err
    except (SafetensorError, KeyError, TypeError, ValueError) as err:
        raise StateError(f"{path} is not a nip-audio {what} file; check the path") from err
    if header.get("sha256") != _content_sha256(tensors, description):
        raise HashMismatchError(f"{path} was changed after it was written; create it again")
    require_finite_values(tensors, of=str(path), error=StateError)
    if content["kind"] not in expected or content["format_version"] != FORMAT_VERSION:
        raise StateError(
            f"{path} has kind {content['kind']} and format {content['format_version']}, expected "
            f"kind {what} and format {FORMAT_VERSION}; check the path, or create the file again"
        )
    if model_id is not None and content["model_id"] != model_id:
        raise StateError(
            f"{path} was made for model {content['model_id'][:12]}, this model is {model_id[:12]}; "
            f"make a new {content['kind']} for this model, or pass the model it was made for"
        )
    return State(content["kind"], content["model_id"], tensors, content["meta"])
