"""Which recordings of which speakers: a folder walk or a manifest."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from nip_audio.audio.io import AUDIO_SUFFIXES, Audio, ReadSettings, Seconds, read_audio
from nip_audio.audio.manifest_formats import entries_of
from nip_audio.audio.places import Places
from nip_audio.errors import AudioError, InputError

__all__ = ["Recording", "read_recordings", "walk_audio", "walk_files"]


@dataclass(frozen=True)
class Recording:
    """One recording to read.

    Attributes:
        id: Stable name: the path below the folder, or the manifest's ID.
        path: The file, or as text its URL.
        speaker: Whose voice it is said to be; None where nothing says so.
        span: What part of it; see ``read_audio``.
        root: Folder, without links in its own path, that links must not lead out of; None lets
            them.
    """

    id: str
    path: Path | str
    speaker: str | None = None
    span: tuple[int, int] | Seconds | None = None
    root: Path | None = field(default=None, compare=False)

    @property
    def folder(self) -> str:
        """What it lies in."""
        return os.path.dirname(self.path)

    @property
    def leads_out(self) -> bool:
        """Whether links lead out of ``root``."""
        return self.root is not None and not _inside(os.path.realpath(self.path), self.root)

    def read(self, settings: ReadSettings | None = None) -> Audio:
        """Read it.

        Raises:
            AudioError: As ``read_audio``; ``outside`` if links lead out of ``root``.
        """
        if self.leads_out:
            raise AudioError(
                self.path,
                code="outside",
                found=f"it is a link to {os.path.realpath(self.path)}, outside of {self.root}",
                remedy="put the file itself there, or pass --follow-links",
            )
        return read_audio(self.path, settings, span=self.span)


def walk_audio(folder: Path, *, follow_links: bool = False) -> Iterator[Recording]:
    """Walk a folder's audio; see ``walk_files``."""
    return walk_files(folder, AUDIO_SUFFIXES, follow_links=follow_links)


def walk_files(
    folder: Path, suffixes: Container[str], *, follow_links: bool = False
) -> Iterator[Recording]:
    """Walk a folder in sorted order.

    The first folder level names the speaker; files directly in ``folder`` have none. Linked folders
    are followed, but not back into a folder above: a loop ends where it closes. Whatever has one of
    the endings is yielded, be it a folder, a pipe or a broken link, so that it can be reported, and
    so is a linked folder outside of ``folder``; other files are nobody's business.

    Args:
        folder: Root.
        suffixes: Endings in lower case, with their dot.
        follow_links: Go on where links lead out of ``folder``.

    Raises:
        InputError: If ``folder`` is no folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the folder that holds the files")
    real = os.path.realpath(folder)
    fence = None if follow_links else Path(real)
    try:
        waiting = [(_entries(folder), frozenset({real}))]
    except OSError as err:
        raise InputError(
            f"{folder} cannot be read ({err.strerror}); check its permissions"
        ) from err
    while waiting:  # no recursion: folders may lie as deep as they like
        entries, above = waiting[-1]
        entry = next(entries, None)
        if entry is None:
            waiting.pop()
            continue
        path = Path(entry.path)
        if path.suffix.lower() in suffixes:
            yield _recording(folder, path, fence)
        elif _is_folder(entry) and (real := os.path.realpath(path)) not in above:
            try:
                if fence is not None and not _inside(real, fence):
                    raise PermissionError(path)
                waiting.append((_entries(path), above | {real}))
            except OSError:
                # a speaker's, however little is known of it; reading it will say what is wrong
                recording = _recording(folder, path, fence)
                yield replace(recording, speaker=recording.id.split("/")[0])


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return iter(sorted(entries, key=lambda e: os.fsencode(e.name)))


def _inside(path: str, folder: Path) -> bool:
    return Path(path).is_relative_to(folder)


def _recording(root: Path, path: Path, fence: Path | None) -> Recording:
    relative = path.relative_to(root)
    speaker = relative.parts[0] if len(relative.parts) > 1 else None
    return Recording(relative.as_posix(), path, speaker, root=fence)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself
        return False


def read_recordings(
    path: Path, *, data_root: str | Path | None = None, follow_links: bool = False
) -> list[Recording]:
    """Read a manifest of any kind that ``manifest_formats`` knows.

    Paths are relative to the manifest's folder. It may come from a stranger, so no file may lie
    outside of that folder, unless below ``data_root``.

    Args:
        path: The manifest.
        data_root: Folder or URL; replaces ``$data_root`` (in JSON also ``{data_root}``), and files
            may lie below it.
        follow_links: Read files that links lead to from inside of the two to outside of them.

    Raises:
        InputError: If it cannot be read, is of no known kind, or an entry is wrong: says where.
    """
    places = Places(path.parent, data_root)
    recordings = []
    for entry in entries_of(path):
        try:
            place, root = places.find(entry.place)
        except ValueError as err:
            raise InputError(f"{path}, {entry.where}: {err}") from err
        root = None if follow_links else root
        recordings.append(Recording(entry.id, place, entry.speaker, entry.span, root))
    return recordings
