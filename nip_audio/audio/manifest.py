"""Which recordings of which speakers: a folder walk or a SpeechBrain CSV manifest."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nip_audio.audio.io import AUDIO_SUFFIXES
from nip_audio.errors import InputError

__all__ = ["Recording", "read_manifest", "walk_audio"]

_MANIFEST_COLUMNS = ("ID", "wav", "spk_id")


@dataclass(frozen=True)
class Recording:
    """One recording to read.

    Attributes:
        id: Stable name: the path below the folder, or the manifest's ID.
        path: The file.
        speaker: Whose voice it is said to be; None where nothing says so.
        span: First sample and the one behind the last; None is the whole file.
    """

    id: str
    path: Path
    speaker: str | None = None
    span: tuple[int, int] | None = None


def walk_audio(folder: Path) -> Iterator[Recording]:
    """Walk a folder in sorted order.

    The first folder level names the speaker; files directly in ``folder`` have none. Linked folders
    are followed, but not back into a folder above: a loop ends where it closes. Whatever has the
    ending of audio is yielded, be it a folder, a pipe or a broken link, so that it can be
    reported; other files are not audio's business.

    Args:
        folder: Root.

    Raises:
        InputError: If ``folder`` is no folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the folder that holds the recordings")
    yield from _walk(folder, folder, {os.path.realpath(folder)})


def _walk(root: Path, folder: Path, seen: set[str]) -> Iterator[Recording]:
    entries = sorted(os.scandir(folder), key=lambda e: os.fsencode(e.name))
    for entry in entries:
        path = Path(entry.path)
        looks_like_audio = path.suffix.lower() in AUDIO_SUFFIXES
        is_folder = _is_folder(entry)
        if is_folder and not looks_like_audio:
            real = os.path.realpath(path)
            if not os.access(path, os.R_OK | os.X_OK):
                yield _recording(root, path)  # reading it will say what is wrong
            elif real not in seen:
                yield from _walk(root, path, seen | {real})
        elif looks_like_audio:
            yield _recording(root, path)


def _recording(root: Path, path: Path) -> Recording:
    relative = path.relative_to(root)
    return Recording(
        relative.as_posix(), path, relative.parts[0] if len(relative.parts) > 1 else None
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself
        return False


def read_manifest(path: Path, *, data_root: Path | None = None) -> list[Recording]:
    """Read a SpeechBrain CSV manifest: columns ID, wav, spk_id and, optionally, start and stop.

    Args:
        path: The CSV.
        data_root: Replaces ``$data_root`` in the wav column.

    Raises:
        InputError: If it cannot be read, lacks a column, or needs ``data_root``.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as err:
        raise InputError(f"{path} cannot be read as a CSV manifest ({err})") from err
    missing = [c for c in _MANIFEST_COLUMNS if rows and c not in rows[0]]
    if missing or not rows:
        problem = f"lacks column {', '.join(missing)}" if missing else "has no rows"
        raise InputError(
            f"{path} {problem}; expected a SpeechBrain manifest with columns ID, wav, spk_id (and "
            "start, stop in samples)"
        )
    recordings = []
    for number, row in enumerate(rows, start=2):
        if None in row.values():
            raise InputError(f"{path}, line {number} has fewer columns than the header; restore it")
        wav = row["wav"]
        if "$data_root" in wav:
            if data_root is None:
                raise InputError(f"{path} names files below $data_root; pass --data-root")
            wav = wav.replace("$data_root", str(data_root))
        try:
            span = (int(row["start"]), int(row["stop"])) if row.get("stop") else None
        except (KeyError, ValueError) as err:
            raise InputError(f"{path}, line {number}: start and stop must be samples") from err
        recordings.append(Recording(row["ID"], Path(wav), row["spk_id"] or None, span))
    return recordings
