"""Say where results are written, and check for conflicts before the first file is processed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nip_audio.core.modality import Modality
from nip_audio.core.state import make_folder, write_atomic
from nip_audio.errors import InputError, OutputError

__all__ = ["claim_outputs", "refuse_clashes", "short_name", "write_sidecar"]

_LONGEST = 240  # bytes; file systems allow 255, and a sidecar's name is longer


def short_name(stem: str, ending: str) -> str:
    """Return ``stem + ending`` as a name that every file system takes.

    A name that is too long, or that no file can have, is cut or changed and gets a part of the hash
    of the stem, so that two such names stay two.

    Example:
        >>> short_name("take", ".wav")
        'take.wav'
        >>> short_name("a" * 300, ".wav")[-19:]
        'aaaaaa~9835fa6b.wav'
    """
    whole = stem.encode("utf-8", "surrogatepass")
    room = _LONGEST - len(ending.encode())
    valid = not any("\ud800" <= letter <= "\udfff" for letter in stem)
    if valid and len(whole) <= room:
        return stem + ending
    mark = f"~{hashlib.sha256(whole).hexdigest()[:8]}"
    kept = whole[: room - len(mark)].decode("utf-8", "ignore")
    return kept + mark + ending


def refuse_clashes(
    planned: Sequence[tuple[Path | str, Sequence[Path]]], *, what: str, force: bool
) -> None:
    """Refuse a plan in which a file would be overwritten by mistake.

    Args:
        planned: Each source with all files that are written for it, the main one first.
        what: Word for the sources in messages, e.g. "recordings".
        force: Whether existing files may be overwritten, except sources.

    Raises:
        InputError: If two sources have the same output.
        OutputError: If an output exists and ``force`` is false, or is one of the sources.
    """
    claimed: dict[Path, Path | str] = {}
    originals = {Path(source).resolve() for source, _ in planned}
    for source, (written, *_) in planned:
        if written in claimed:
            raise InputError(
                f"{claimed[written]} and {source} would both become {written}; rename one, or "
                "process them in two runs with two output folders"
            )
        claimed[written] = source
    for output in (output for _, outputs in planned for output in outputs):
        if output.resolve() in originals:
            raise OutputError(f"{output} is one of the {what}; choose another `out`")
        if output.exists() and not force:
            raise OutputError(
                f"{output} exists already; pass `force=True` to overwrite it, or another `out`"
            )


def claim_outputs(
    sources: Sequence[Path], out: Path, modality: Modality, *, name: str, force: bool
) -> list[Path]:
    """Return what each attacked file becomes, and make the folder.

    Args:
        sources: Files to attack.
        out: Folder for the results.
        modality: Modality of the files.
        name: Name of the attack, which becomes part of the names of the results.
        force: Whether existing files may be overwritten, except sources.

    Raises:
        InputError: If there is no source, or two have the same output.
        OutputError: If an output exists and ``force`` is false or is one of the sources, or ``out``
            cannot be made.
    """
    if not sources:
        raise InputError(f"found {modality.expected.format('no path')}; check the path")
    endings = modality.attacked
    written = [out / short_name(source.stem, f".{name}{endings.file}") for source in sources]
    planned = [
        (source, (path, endings.sidecar(path)))
        for source, path in zip(sources, written, strict=True)
    ]
    refuse_clashes(planned, what=modality.plural, force=force)
    make_folder(out)
    return written


def write_sidecar(path: Path, values: Mapping[str, Any], *, force: bool) -> None:
    """Write the JSON sidecar of a written file, whole or not at all.

    Raises:
        OutputError: If it exists and ``force`` is false, or cannot be written.
    """
    text = json.dumps(values, indent=2, allow_nan=False) + "\n"
    write_atomic(path, text.encode(), force=force)
