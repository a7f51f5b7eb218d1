"""List the recordings to read and their speakers, from a folder or a manifest."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from nip_audio.audio.archives import Archive, is_archive, open_archive
from nip_audio.audio.io import AUDIO_SUFFIXES, Audio, ReadSettings, Seconds, read_audio
from nip_audio.audio.manifest_formats import entries_of
from nip_audio.audio.names import composed, one_spelling
from nip_audio.audio.places import Places
from nip_audio.errors import AudioError, FileError, InputError

__all__ = [
    "PassedOver",
    "Recording",
    "find_in_folder",
    "read_recordings",
    "walk_audio",
    "walk_files",
    "walk_folder",
]

_SYSTEM = frozenset(
    {
        *("__MACOSX", "$RECYCLE.BIN", "System Volume Information", "lost+found"),
        *("@eaDir", "@Recycle", "@Recently-Snapshot", "#recycle", "#snapshot"),
    }
)
"""Folders that operating systems and file servers make for themselves."""


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
        namesake: Id of another file whose name is the same text in another Unicode form; None if
            there is none.
        condition: Recording condition that the manifest names; None if it names none.
    """

    id: str
    path: Path | str
    speaker: str | None = None
    span: tuple[int, int] | Seconds | None = None
    root: Path | None = field(default=None, compare=False)
    channel: int | None = None
    namesake: str | None = field(default=None, compare=False)
    condition: str | None = None

    @property
    def folder(self) -> str:
        """Folder of the file, as text."""
        return os.path.dirname(self.path)

    @property
    def leads_out(self) -> bool:
        """Whether symbolic links lead out of ``root``."""
        return self.root is not None and not _inside(os.path.realpath(self.path), self.root)

    def check(self, error: type[FileError]) -> None:
        """Refuse a file that must not be read, whatever it holds.

        Args:
            error: Class of the error, that of the modality.

        Raises:
            FileError: With code ``outside`` if links lead out of ``root``, or ``same_name`` if it
                has a ``namesake``.
        """
        if self.leads_out:
            raise error(
                self.path,
                code="outside",
                found=f"it is a link to {os.path.realpath(self.path)}, outside of {self.root}",
                remedy="replace the link by the file itself, or allow it (--follow-links, or "
                "follow_links=True)",
            )
        if self.namesake is not None:
            raise error(
                self.path,
                code="same_name",
                found=f"its name is the same text as that of {self.namesake!r}, in another Unicode "
                "form, so that other programs may take one for the other",
                remedy="rename one of the two",
            )

    def read(self, settings: ReadSettings | None = None) -> Audio:
        """Read the recording.

        Args:
            settings: Settings for reading; None uses the defaults.

        Raises:
            AudioError: With a code of ``read_audio`` or of ``check``.
        """
        self.check(AudioError)
        if self.channel is not None:
            settings = replace(settings or ReadSettings(), channel=self.channel)
        return read_audio(self.path, settings, span=self.span)


@dataclass(frozen=True)
class PassedOver:
    """A file or folder that a walk does not read.

    Attributes:
        id: Path relative to the folder that is walked; that of a folder ends in ``/``.
        hidden: Whether it is hidden or belongs to the system; otherwise its ending is unknown.
    """

    id: str
    hidden: bool


def walk_audio(folder: Path, *, follow_links: bool = False) -> Iterator[Recording]:
    """List the audio files of a folder in sorted order; see ``walk_files``."""
    return walk_files(folder, AUDIO_SUFFIXES, follow_links=follow_links)


def walk_files(
    folder: Path, suffixes: Container[str], *, follow_links: bool = False
) -> Iterator[Recording]:
    """List the files to read of a folder; see ``walk_folder``."""
    found = walk_folder(folder, suffixes, follow_links=follow_links)
    return (one for one in found if isinstance(one, Recording))


def walk_folder(
    folder: Path, suffixes: Container[str], *, follow_links: bool = False
) -> Iterator[Recording | PassedOver]:
    """List the files of a folder and its subfolders in sorted order.

    The first folder level is the speaker's name; files directly in ``folder`` have no speaker.
    Linked folders are followed, except back into a parent folder. Every entry with one of the
    endings is yielded, even a folder, a pipe or a broken link, so that it is reported; so is a link
    to a folder outside ``folder``. Names that differ in their Unicode form only are one name, and
    of two such files the second is yielded with a ``namesake``.

    Hidden files and folders, and those that systems make for themselves (trash, ``__MACOSX``,
    ``@eaDir``), hold no recordings of a speaker: they are passed over, and such folders are not
    looked into. Hidden files with other endings are ignored.

    A ZIP or tar archive (``archives``) is walked like the folder that it would unpack to, but in
    its own order.

    Args:
        folder: Folder, or archive, to walk.
        suffixes: File name endings in lower case, with their dot.
        follow_links: Also follow links that lead out of ``folder``.

    Returns:
        Each file to read, and each file or folder that is passed over.

    Raises:
        InputError: If ``folder`` is neither or cannot be read, or an archive was made to do harm.
    """
    named = _Namer(folder, None if follow_links else folder.resolve())
    if is_archive(folder):
        return _walk_archive(open_archive(folder), suffixes, named)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; pass the folder that holds the files")
    return _walk(folder, suffixes, named)


def _walk(
    folder: Path, suffixes: Container[str], named: _Namer
) -> Iterator[Recording | PassedOver]:
    """List the files of a folder."""
    real = os.path.realpath(folder)
    try:
        waiting: list[Folder] = [(_entries(folder), frozenset({real}))]
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
        wanted, of_folder = path.suffix.lower() in suffixes, _is_folder(entry)
        if _is_hidden(entry.name):
            if wanted or of_folder:
                yield PassedOver(named.id(path) + "/" * of_folder, hidden=True)
        elif wanted:
            yield named.recording(path)
        elif not of_folder:
            yield PassedOver(named.id(path), hidden=False)
        else:
            try:
                waiting += _inner(path, above, named.fence)
            except OSError:
                # yielded as a file of its speaker; reading it will raise the proper error
                recording = named.recording(path)
                yield replace(recording, speaker=one_spelling(recording.id.split("/")[0]))


Folder = tuple[Iterator[os.DirEntry[str]], frozenset[str]]
"""Entries of a folder that are left to walk, and the paths of the folders that it is in."""


def _inner(path: Path, above: frozenset[str], fence: Path | None) -> list[Folder]:
    """Return a sub-folder to walk, or none if it leads back into a parent folder."""
    real = os.path.realpath(path)
    if real in above:
        return []
    if fence is not None and not _inside(real, fence):
        raise PermissionError(path)
    return [(_entries(path), above | {real})]


def _walk_archive(
    archive: Archive, suffixes: Container[str], named: _Namer
) -> Iterator[Recording | PassedOver]:
    """List the members of an archive, speaker by speaker."""
    groups: dict[str, list[Path]] = {}
    for name in archive.members:
        first, below, _ = name.partition("/")
        groups.setdefault(one_spelling(first) if below else "", []).append(archive.path / name)
    hidden: set[Path] = set()
    for path in (path for group in groups.values() for path in group):
        wanted = path.suffix.lower() in suffixes
        above = [p for p in reversed(path.parents) if archive.path in p.parents]
        inside = next((p for p in above if _is_hidden(p.name)), None)
        if inside is not None:
            if inside not in hidden:
                yield PassedOver(f"{named.id(inside)}/", hidden=True)
            hidden.add(inside)
        elif _is_hidden(path.name):
            if wanted:
                yield PassedOver(named.id(path), hidden=True)
        elif wanted:
            yield named.recording(path)
        else:
            yield PassedOver(named.id(path), hidden=False)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _SYSTEM


def find_in_folder(folder: Path, recording_id: str) -> Path:
    """Return the path of the file to which ``walk_folder`` gave an id, in any Unicode form.

    A file that does not exist has a path, too, so that reading it says so.
    """
    path = folder / recording_id
    if recording_id.isascii() or os.path.lexists(path):
        return path
    found = [folder]
    for part in recording_id.split("/"):
        found = [Path(e.path) for one in found for e in _spelled(one, part)]
    return found[0] if found else path


def _spelled(folder: Path, name: str) -> list[os.DirEntry[str]]:
    try:
        return [e for e in _entries(folder) if composed(e.name) == name]
    except OSError:
        return []


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return iter(sorted(entries, key=_order))


def _order(entry: os.DirEntry[str]) -> tuple[bytes, bool, bytes]:
    """Sort spellings of one name next to each other, the composed one first."""
    name = one_spelling(entry.name)
    return os.fsencode(name), entry.name != name, os.fsencode(entry.name)


def _inside(path: str, folder: Path) -> bool:
    return Path(path).is_relative_to(folder)


class _Namer:
    """Gives the files of a folder their ids and speakers."""

    def __init__(self, root: Path, fence: Path | None) -> None:
        self.root, self.fence = root, fence
        self._speaker: str | None = None
        self._given: set[str] = set()  # ids of this speaker; only those that can be spelled twice

    def id(self, path: Path) -> str:
        """Return the path relative to the root, in one Unicode form."""
        return composed(path.relative_to(self.root).as_posix())

    def recording(self, path: Path) -> Recording:
        """Return the file with its id and speaker."""
        spelled = path.relative_to(self.root).as_posix()
        name = self.id(path)
        speaker = one_spelling(name.split("/")[0]) if "/" in name else None
        if name.isascii():
            return Recording(name, path, speaker, root=self.fence)
        if speaker != self._speaker:
            self._speaker = speaker
            self._given.clear()
        if name in self._given:
            return Recording(spelled, path, speaker, root=self.fence, namesake=name)
        self._given.add(name)
        return Recording(name, path, speaker, root=self.fence)


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
            Recording(
                entry.id,
                place,
                entry.speaker,
                entry.span,
                root,
                entry.channel,
                condition=entry.condition,
            )
        )
    return recordings
