"""Save and load anything fitted: one safetensors file, JSON inside, bound to a model by hash."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nip_audio.core.strict_json import load_json
from nip_audio.errors import HashMismatchError, NipAudioError, OutputError, StateError

__all__ = [
    "State",
    "file_sha256",
    "load_state",
    "reading_state",
    "require_new",
    "save_state",
    "whole_lines",
    "write_atomic",
]

FORMAT_VERSION = 1


@dataclass(frozen=True)
class State:
    """What was fitted.

    Attributes:
        kind: What it is, e.g. ``"calibration"``; loading asks for it by name.
        model_id: Identity of the model it was fitted for.
        tensors: Arrays.
        meta: JSON values.
    """

    kind: str
    model_id: str
    tensors: Mapping[str, Tensor]
    meta: Mapping[str, Any]


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256 in hex, reading it in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def whole_lines(path: Path, *, mend: bool) -> list[bytes]:
    """Read a file that grows line by line, without a last line that a kill left unfinished.

    Args:
        path: The file; a missing one has no lines.
        mend: Cut that line off, for who goes on writing. Who only reads must not: the line may be
            another process's, still being written.
    """
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if mend and whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)
    return data[:whole].splitlines()


def require_new(path: Path, *, force: bool = False) -> None:
    """Refuse a place that nothing could be written to, before the work that is to end there.

    Raises:
        OutputError: If the file exists and ``force`` is false, if it is a folder, or its own folder
            is missing.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder, expected a file to write; name one in it")
    if path.exists() and not force:
        raise OutputError(f"{path} exists already; pass --force to overwrite it, or another name")
    if not path.parent.is_dir():
        raise OutputError(f"folder {path.parent} does not exist; create it first")


def make_folder(folder: Path) -> None:
    """Make a folder for results, and those above it, if it is not there.

    Raises:
        OutputError: If it cannot be made, or is a file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise OutputError(
            f"{folder} cannot be written ({err.strerror}); use another --out"
        ) from err


def write_atomic(path: Path, data: bytes, *, force: bool = False) -> None:
    """Write a whole file or nothing.

    Raises:
        OutputError: If the file exists and ``force`` is false, or its folder is missing or cannot
            be written to.
    """
    require_new(path, force=force)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
    except OSError as err:
        raise OutputError(f"{path} cannot be written ({err.strerror}); use another place") from err
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        # mkstemp makes files private; a result should have the permissions of any other file
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except OSError as err:
        Path(name).unlink(missing_ok=True)
        raise OutputError(
            f"{path} cannot be written ({err.strerror or err}); make room there"
        ) from err
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _content_sha256(tensors: Mapping[str, Tensor], description: str) -> str:
    digest = hashlib.sha256(description.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        if tensor.numel():
            # flat first: a tensor without axes cannot be viewed as bytes; and read where it lies,
            # since what is mapped from a file may be larger than the memory
            digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_state(path: Path, state: State, *, force: bool = False) -> None:
    """Write a state atomically.

    Raises:
        OutputError: As ``write_atomic``.
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
    """Put together what a state holds: whatever does not fit means that the file is damaged.

    Its hash tells of accidents, not of malice: who writes a file can hash it, too.

    Raises:
        StateError: Instead of the errors of what is missing, or of another type or shape.
    """
    try:
        yield
    except NipAudioError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as err:
        raise StateError(f"{path} does not hold what it should ({err!r}); make it anew") from err
    except RuntimeError as err:  # torch's
        raise StateError(f"{path} does not hold what it should ({err}); make it anew") from err


def load_state(path: Path, *, kind: str | Sequence[str], model_id: str | None = None) -> State:
    """Read a state.

    Its tensors are mapped from the file: read once for the check, then kept in memory only as long
    as there is room. A file must not be changed in place while they are in use; ``save_state``
    never does, it puts a new one there.

    Args:
        path: File that ``save_state`` wrote.
        kind: The kind expected, or several of which it may be any.
        model_id: The model it will be used with; None skips the comparison.

    Raises:
        StateError: If the file is missing, is no state, or is of another kind, version or model.
        HashMismatchError: If its content was changed.
    """
    expected = (kind,) if isinstance(kind, str) else tuple(kind)
    what = " or ".join(expected)
    try:
        with path.open("rb"):  # says why not, which the mapping does not
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
        raise HashMismatchError(f"{path} was changed after it was written; make it anew")
    if content["kind"] not in expected or content["format_version"] != FORMAT_VERSION:
        raise StateError(
            f"{path} is a {content['kind']} of format {content['format_version']}, expected a "
            f"{what} of format {FORMAT_VERSION}"
        )
    if model_id is not None and content["model_id"] != model_id:
        raise StateError(
            f"{path} was made for model {content['model_id'][:12]}, this model is {model_id[:12]}; "
            f"make a new {content['kind']} for this model, or pass the model it was made for"
        )
    return State(content["kind"], content["model_id"], tensors, content["meta"])
