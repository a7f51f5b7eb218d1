"""List the recordings to read and their speakers, from a folder or a manifest."""

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
        id: Stable name: the path relative to the folder, or the manifest's ID.
        path: File, or its URL as text.
        speaker: Name of the claimed speaker; None if there is none.
        span: Part of the file to read, as in ``read_audio``; None means all.
        channel: Number of the channel to read, from 1; None means what the settings say.
        root: Folder (its own path resolved) that links must stay inside; None allows any target.
    """

    id: str
    path: Path | str
    speaker: str | None = None
    span: tuple[int, int] | Seconds | None = None
    root: Path | None = field(default=None, compare=False)
    channel: int | None = None

    @property
    def folder(self) -> str:
        """Folder of the file, as text."""
        return os.path.dirname(self.path)

    @property
    def leads_out(self) -> bool:
        """Whether symbolic links lead out of ``root``."""
        return self.root is not None and not _inside(os.path.realpath(self.path), self.root)

    def read(self, settings: ReadSettings | None = None) -> Audio:
        """Read the recording.

        Args:
            settings: Settings for reading; None uses the defaults.

        Raises:
            AudioError: With a code of ``read_audio``, or ``outside`` if links lead out of ``root``.
        """
        if self.leads_out:
            raise AudioError(
                self.path,
                code="outside",
                found=f"it is a link to {os.path.realpath(self.path)}, outside of {self.root}",
                remedy="replace the link by the file itself, or pass --follow-links",
            )
        if self.channel is not None:
            settings = replace(settings or ReadSettings(), channel=self.channel)
        return read_audio(self.path, settings, span=self.span)


def walk_audio(folder: Path, *, follow_links: bool = False) -> Iterator[Recording]:
    """List the audio files of a folder in sorted order; see ``walk_files``."""
    return walk_files(folder, AUDIO_SUFFIXES, follow_links=follow_links)


def walk_files(
    folder: Path, suffixes: Container[str], *, follow_links: bool = False
) -> Iterator[Recording]:
    """List the files of a folder and its subfolders in sorted order.

    The first folder level is the speaker's name; files directly in ``folder`` have no speaker.
    Linked folders are followed, except back into a parent folder. Every entry with one of the
    endings is yielded, even a folder, a pipe or a broken link, so that it is reported; so is a link
    to a folder outside ``folder``. Other files are ignored.

    Args:
        folder: Folder to walk.
        suffixes: File name endings in lower case, with their dot.
        follow_links: Also follow links that lead out of ``folder``.

    Yields:
        One entry per file.

    Raises:
        InputError: If ``folder`` is not a folder or cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; pass the folder that holds the files")
    real = os.path.realpath(folder)
    fence = None if follow_links else Path(real)
    try:
        waiting = [(_entries(folder), frozenset({real}))]
    except OSError as err:
        raise InputError(
            f"{folder} cannot be read ({err.strerror}); check its permissions"
        ) from err
    while waiting:  # no recursion, so that folders may be nested deeply
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
                # yielded as a file of its speaker; reading it will raise the proper error
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
    except OSError:  # a link to itself
        return False


def read_recordings(
    path: Path, *, data_root: str | Path | None = None, follow_links: bool = False
) -> list[Recording]:
    """Read a manifest in any format that ``manifest_formats`` knows.

    Paths are relative to the manifest's folder. The manifest may come from an untrusted source, so
    all files must be inside that folder or ``data_root``.

    Args:
        path: Manifest file.
        data_root: Folder or URL that replaces ``$data_root`` (in JSON also ``{data_root}``) and
            that may contain the files.
        follow_links: Also read files through links that lead out of the two folders.

    Raises:
        InputError: If the manifest cannot be read or has no known format, or an entry is invalid;
            the message names the line or entry.
    """
    places = Places(path.parent, data_root)
    recordings = []
    for entry in entries_of(path):
        try:
            place, root = places.find(entry.place)
        except ValueError as err:
            raise InputError(f"{path}, {entry.where}: {err}") from err
        root = None if follow_links else root
        recordings.append(
            Recording(entry.id, place, entry.speaker, entry.span, root, entry.channel)
        )
    return recordings
