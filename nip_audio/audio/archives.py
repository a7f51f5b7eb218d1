"""Read recordings in ZIP and tar archives where they are: nothing is unpacked.

A member is named like a file in a folder that has the archive's name: ``voices.zip/ann/a.wav``.
Archives come from strangers. One that would do harm if it were unpacked (names that lead out, or a
bomb) is refused as a whole; what makes a member ambiguous or unreadable is an error of that member.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import tarfile
import threading
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import BinaryIO, cast

from nip_audio.audio._inflated import Inflated
from nip_audio.audio.names import composed
from nip_audio.errors import AudioError, InputError

__all__ = [
    "ARCHIVE_SUFFIXES",
    "Archive",
    "Member",
    "archive_of",
    "is_archive",
    "open_archive",
    "read_member",
]

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
"""File name endings of the archives that are read."""

_MOST_MEMBERS = 300_000
_MOST_UNPACKED = 1 << 28
"""Largest member: it is held in memory while it is read."""
_FREE, _RATIO = 1 << 26, 100  # silence shrinks to a thousandth, speech to a third
_MOST_HEADER, _MOST_DIRECTORY = 1 << 20, 1 << 25
_PIECE = 1 << 20
_PACK = "pack it again as .zip or .tar.gz"
_UNPACK = "unpack it where that does no harm, look at what it holds, and pass the folder"

Problem = tuple[str, str, str]
"""Code, what is wrong in words, and what to do."""


class _UnfitError(Exception):
    """An archive that is not read: what is wrong, and what to do."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(f"{found}; {remedy}")
        self.found, self.remedy = found, remedy


@dataclass(frozen=True)
class Member:
    """A file in an archive.

    Attributes:
        name: Its path in the archive, with forward slashes.
        size: Number of bytes that it states to hold.
        place: Where it is: an offset in a tar archive, a number in the directory of a ZIP archive.
        problem: Why it is not read; None if it is.
    """

    name: str
    size: int
    place: int
    problem: Problem | None = None


@dataclass(frozen=True, eq=False)
class Archive:
    """An archive that is open, and what it holds.

    Attributes:
        path: The archive.
        members: Its files by name, in its own order.
        folders: Folders of the first level, whether they hold files or not.
    """

    path: Path
    members: Mapping[str, Member]
    folders: frozenset[str]
    _pieces: Callable[[Member], Iterator[bytes]] = field(repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)  # of one open file

    def find(self, name: str) -> Member | None:
        """Return the member of a name, in any Unicode form; None if there is none."""
        return self.members.get(name) or self._composed.get(composed(name))

    def read(self, path: Path, member: Member, *, max_bytes: int) -> io.BytesIO:
        """Return the content of a member, from its start.

        Args:
            path: Its path, for messages.
            member: The member.
            max_bytes: Largest allowed size in bytes.

        Raises:
            AudioError: With code ``not_a_file``, ``same_name``, ``unreadable``, ``too_large`` or
                ``damaged``.
        """
        if member.problem is not None:
            code, found, remedy = member.problem
            raise AudioError(path, code=code, found=found, remedy=remedy)
        most = min(max_bytes, _MOST_UNPACKED)
        if member.size > most:
            raise AudioError(
                path,
                code="too_large",
                found=f"it holds {member.size} bytes, and of a member of an archive at most {most} "
                "are read",
                remedy="unpack the archive, and pass the folder",
            )
        content = io.BytesIO()
        try:
            with self._lock:
                for piece in self._pieces(member):  # no more than the stated size
                    content.write(piece)
        except (*_BROKEN, _UnfitError) as err:
            raise AudioError(
                path,
                code="damaged",
                found=f"it cannot be read in its archive ({_said(err)})",
                remedy=_PACK,
            ) from err
        content.seek(0)
        return content

    @cached_property
    def _composed(self) -> dict[str, Member]:
        found: dict[str, Member] = {}
        for name, member in self.members.items():
            found.setdefault(composed(name), member)
        return found


def is_archive(path: Path) -> bool:
    """Tell whether a path has the name of an archive, and is no folder."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES) and path.is_file()


def archive_of(path: Path) -> tuple[Path, str] | None:
    """Return the archive that a path leads into, and the name in it; None if it leads into none.

    Example:
        >>> archive_of(Path("voices/ann/a.wav")) is None
        True
    """
    for parent in reversed(path.parents):
        if is_archive(parent):
            return parent, path.relative_to(parent).as_posix()
    return None


def open_archive(path: Path) -> Archive:
    """Return what an archive holds; it is looked through once while it does not change.

    Raises:
        InputError: If it is no archive, is damaged, or was made to do harm.
    """
    try:
        return _opened(path)
    except _UnfitError as err:
        raise InputError(f"{path} {err.found}; {err.remedy}") from err


def read_member(path: Path, archive: Path, name: str, *, max_bytes: int) -> io.BytesIO:
    """Return the content of a member of an archive, from its start.

    Args:
        path: Its path, for messages.
        archive: The archive.
        name: Its name in the archive.
        max_bytes: Largest allowed size in bytes.

    Raises:
        AudioError: If it cannot be read, as ``Archive.read``; with code ``missing`` if there is no
            such member, or ``unreadable`` if the archive cannot be read.
    """
    try:
        opened = _opened(archive)
    except _UnfitError as err:
        raise AudioError(
            path, code="unreadable", found=f"its archive {err.found}", remedy=err.remedy
        ) from err
    member = opened.find(name)
    if member is None:
        inner = [m for m in opened.members if name.startswith(f"{m}/")]
        nested = bool(inner) and inner[0].lower().endswith(ARCHIVE_SUFFIXES)
        raise AudioError(
            path,
            code="missing",
            found=f"it is in {inner[0]!r}, and an archive in an archive is not read"
            if nested
            else f"its archive has no member {name!r}",
            remedy="unpack the outer one" if nested else "check the path",
        )
    return opened.read(path, member, max_bytes=max_bytes)


def _opened(path: Path) -> Archive:
    try:
        status = path.stat()
    except OSError as err:
        raise _UnfitError(f"cannot be read ({err.strerror})", "check its permissions") from err
    marks = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    found = _looked_through(path, marks)
    if isinstance(found, _UnfitError):
        raise found
    return found


@lru_cache(maxsize=4)
def _looked_through(path: Path, marks: tuple[int, ...]) -> Archive | _UnfitError:
    """Look through an archive; what is wrong with it is kept, too, and not found out again."""
    del marks  # another archive of this name is looked through again
    kind = "a ZIP archive" if path.name.lower().endswith(".zip") else "a tar archive"
    look = _look_through_zip if kind == "a ZIP archive" else _look_through_tar
    try:
        file = path.open("rb")
    except OSError as err:
        return _UnfitError(f"cannot be read ({err.strerror})", "check its permissions")
    try:
        archive = look(path, file)
    except (*_BROKEN, _UnfitError) as err:
        file.close()
        if isinstance(err, _UnfitError):
            return err
        return _UnfitError(f"cannot be read as {kind} ({_said(err)})", f"copy it again, or {_PACK}")
    except BaseException:
        file.close()
        raise
    weakref.finalize(archive, file.close)
    return archive


_BROKEN = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, OSError, EOFError),
    *(LookupError, OverflowError, NotImplementedError, RuntimeError, ValueError),
)
"""What the readers of archives raise for content that they do not expect."""


def _said(err: Exception) -> str:
    return " ".join(str(err).split())[:200] or type(err).__name__


def _most_unpacked(packed: int) -> int:
    """Return how much an archive of a size may hold, before it is taken for a bomb."""
    return _FREE + _RATIO * packed


def _bomb(size: int) -> _UnfitError:
    return _UnfitError(
        f"unpacks to more than {_most_unpacked(size)} bytes and has {size}, as a bomb does", _UNPACK
    )


class _Members:
    """Collects the members of an archive, and refuses what leads out of it."""

    def __init__(self) -> None:
        """Start without any."""
        self.files: dict[str, Member] = {}
        self.folders: set[str] = set()
        self._seen = 0

    def add(self, raw: str, member: Member, *, folder: bool) -> None:
        """Add a member under its name; one of a name that is there already makes it ambiguous."""
        self._seen += 1
        if self._seen > _MOST_MEMBERS:
            raise _UnfitError(
                f"has more than {_MOST_MEMBERS} members",
                "split it, or unpack it and pass the folder",
            )
        parts = [part for part in raw.split("/") if part not in ("", ".")]
        drive = bool(parts) and len(parts[0]) == 2 and parts[0][1] == ":"
        if raw.startswith("/") or ".." in parts or "\0" in raw or drive:
            raise _UnfitError(
                f"has a member named {raw!r}, which leads out of it: such archives are made to "
                "overwrite files",
                _UNPACK,
            )
        if len(parts) > 1 or (parts and folder):
            self.folders.add(parts[0])
        if folder or not parts:
            return
        name = "/".join(parts)
        if name in self.files:
            twice = (
                "same_name",
                "its archive has two members of this name, and programs differ in which they read",
                "remove one of the two",
            )
            member = replace(self.files[name], problem=twice)
        self.files[name] = replace(member, name=name)


def _look_through_zip(path: Path, file: BinaryIO) -> Archive:
    bounded = _Bounded(file, _MOST_DIRECTORY)
    archive = zipfile.ZipFile(cast("BinaryIO", bounded))
    infos = archive.infolist()
    found = _Members()
    size = os.fstat(file.fileno()).st_size
    if sum(info.file_size for info in infos) > _most_unpacked(size):
        raise _bomb(size)
    for place, info in enumerate(infos):
        raw = info.orig_filename.replace("\\", "/")
        folder = raw.endswith("/")
        found.add(raw, Member("", info.file_size, place, _problem_of_zip(info)), folder=folder)

    def pieces(member: Member) -> Iterator[bytes]:
        with archive.open(infos[member.place]) as content:
            while piece := content.read(_PIECE):
                yield piece

    return Archive(path, found.files, frozenset(found.folders), pieces)


def _problem_of_zip(info: zipfile.ZipInfo) -> Problem | None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return _no_file("a link" if kind == stat.S_IFLNK else "a device, pipe or socket")
    if info.flag_bits & 0x1:
        return "unreadable", "it is encrypted", "unpack the archive with its password"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        method = f"it is packed by method {info.compress_type} of ZIP, expected deflate or none"
        return "unreadable", method, _PACK
    return None


def _look_through_tar(path: Path, file: BinaryIO) -> Archive:
    size = os.fstat(file.fileno()).st_size
    packed = path.name.lower().endswith("gz")
    content = Inflated(file, _most_unpacked) if packed else file
    bounded = _Bounded(cast("BinaryIO", content), _MOST_HEADER)
    found = _Members()
    try:
        bounded.left = _MOST_HEADER
        with tarfile.TarFile(
            fileobj=cast("BinaryIO", bounded), mode="r", encoding="utf-8"
        ) as archive:
            while (info := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # else it keeps them all
                if sum(map(len, archive.pax_headers)) > _MOST_HEADER // 16:
                    raise _UnfitError("has more headers than recordings need", _PACK)
                bounded.left = _MOST_HEADER
                member = Member("", info.size, info.offset_data, _problem_of_tar(info))
                found.add(info.name, member, folder=info.isdir())
            _require_end(bounded, archive.offset)
    except OverflowError as err:
        raise _bomb(size) from err

    def pieces(member: Member) -> Iterator[bytes]:
        content.seek(member.place)
        left = member.size
        while left > 0:
            piece = content.read(min(left, _PIECE))
            if not piece:
                raise EOFError("it ends in the middle")
            left -= len(piece)
            yield piece

    return Archive(path, found.files, frozenset(found.folders), pieces)


def _problem_of_tar(info: tarfile.TarInfo) -> Problem | None:
    if info.issym() or info.islnk():
        return _no_file(f"a link to {info.linkname!r}")
    if info.issparse():
        return "unreadable", "it is a sparse file", _PACK
    return None if info.isreg() else _no_file("a device, pipe or socket")


def _require_end(bounded: _Bounded, place: int) -> None:
    """Refuse what follows where tarfile stops, be it a damaged header or a second archive."""
    bounded.seek(place)
    while piece := bounded.file.read(_PIECE):
        if piece.strip(b"\0"):
            raise _UnfitError(
                f"is damaged, or something else follows, after {place} bytes: programs differ in "
                "what they read of it",
                f"copy it again, or {_PACK}",
            )


def _no_file(kind: str) -> Problem:
    return "not_a_file", f"it is {kind}, expected a file", "pack the file itself"


class _Bounded:
    """File of which little is read at once, however much a header asks for.

    Args:
        file: The file.
        most: Most bytes to read at once.

    Attributes:
        left: Most bytes to read in all, until it is set again; None for any number.
    """

    def __init__(self, file: BinaryIO, most: int) -> None:
        self.file, self._most = file, most
        self.left: int | None = None
        self.seek, self.tell = file.seek, file.tell

    def read(self, count: int | None = None) -> bytes:
        """Return so many bytes, or all that follow.

        Raises:
            ValueError: If they are more than a header has.
        """
        most = self._most if self.left is None else min(self.left, self._most)
        if count is None:
            here = self.file.tell()
            count = self.file.seek(0, os.SEEK_END) - here
            self.file.seek(here)
        if count > most:
            raise ValueError("a header of it asks for more than a header has")
        piece = self.file.read(count)
        if self.left is not None:
            self.left -= len(piece)
        return piece

    def seekable(self) -> bool:
        """Return True."""
        return True
