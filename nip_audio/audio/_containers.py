"""Examine MP4, Matroska and AMR files: how long they say they are, and whether that can be so.

These containers are decoded by PyAV (``_tracks``), which believes their tables. So the tables are
compared with each other and with the size of the file before it is asked.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nip_audio.audio._layout import NO_LENGTH, bytes_at, contradiction, negligible, size_of
from nip_audio.audio._streams import NO_END
from nip_audio.errors import AudioError

SLACK_S = 0.15
"""Seconds by which lengths and time stamps may differ: the frames that a codec fills up."""

_TRIMMED_S = 0.4  # what an encoder puts before and after the sound, at 8 kHz
_SEVERAL = "it holds several recordings one after the other"
_MOST_PARTS = 1 << 20
_MOST_ENTRIES = 1 << 20


@dataclass(frozen=True)
class Container:
    """What is known of a file before it is decoded.

    Attributes:
        name: Name in ``Audio.encoding``.
        demuxer: Name of FFmpeg's only demuxer that may read it.
        stated_s: Duration that the file states; None if it states none.
        notes: What was found, in words.
        stop: Offset in the file where the sound ends; None if that is its end.
    """

    name: str
    demuxer: str
    stated_s: float | None
    notes: tuple[str, ...] = ()
    stop: int | None = None


def container_of(head: bytes) -> str | None:
    """Return the name of the container that a file starts like; None if PyAV is not needed.

    Args:
        head: The first 64 bytes of the file, or more.

    Example:
        >>> container_of(bytes(4) + b"ftypM4A " + bytes(52))
        'M4A'
    """
    if head[4:8] == b"ftyp":
        brands = {b"M4A": "M4A", b"M4B": "M4A", b"3gp": "3GP", b"3g2": "3GP", b"qt ": "MOV"}
        return brands.get(head[8:11], "MP4")
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "WEBM" if b"webm" in head[:64] else "MATROSKA"
    return "AMR" if head.startswith((_AMR, _AMR_WB)) else None


def examine(path: str | Path, file: io.BufferedReader, name: str) -> Container:
    """Return what a file states of itself.

    Args:
        path: The file, for messages.
        file: The file, open.
        name: What ``container_of`` said.

    Raises:
        AudioError: With code ``damaged`` if its tables contradict each other or the size of the
            file, ``not_audio`` if it is encrypted, or ``too_long``.
    """
    stop = size_of(file)
    if name == "AMR":
        return _examine_amr(path, file, stop)
    look = _examine_matroska if name in ("WEBM", "MATROSKA") else _examine_mp4
    return look(path, file, name, stop)


def _damaged(path: str | Path, found: str) -> AudioError:
    return AudioError(path, code="damaged", found=found, remedy="copy or record it again")


def _counted(path: str | Path, count: int) -> int:
    """Return the next number of a part, as long as there are not too many."""
    if count == _MOST_PARTS:
        raise AudioError(
            path, code="too_long", found=f"it has more than {count} parts", remedy="split it"
        )
    return count + 1


# --- MP4, M4A, 3GP, QuickTime (ISO/IEC 14496-12) ---

_FOLDERS = frozenset((*(b"moov", b"trak", b"mdia", b"minf", b"stbl"), *(b"edts", b"dinf")))
_FRAGMENTS = frozenset((b"moof", b"traf"))


@dataclass
class _SoundTrack:
    """Tables of a track, in units of its own ``scale`` a second."""

    sound: bool = False
    scale: int = 0
    stated: int = 0
    summed: int = 0
    timed: int = 0
    samples: int = 0
    encodings: int = 1
    encrypted: bool = False
    edits: list[tuple[int, int]] = field(default_factory=list)


class _Mp4:
    """Reads the tables of a file of boxes."""

    def __init__(self, path: str | Path, file: io.BufferedReader, stop: int) -> None:
        self.path, self.file, self.stop = path, file, stop
        self.tracks: list[_SoundTrack] = []
        self.scale = self.fragments = self._runs = 0
        self._seen: set[bytes] = set()
        for kind, place, end in self._boxes():
            self._read(kind, place, end)
        if b"moov" not in self._seen:
            raise _damaged(path, "it breaks off before the table of its sound")

    def _boxes(self) -> Iterator[tuple[bytes, int, int]]:
        """Yield the kind, the content's first byte and the end of each box, the outer one first."""
        place, ends, count = 0, [self.stop], 0
        while place < self.stop:
            while place == ends[-1]:
                ends.pop()
            count = _counted(self.path, count)
            head = bytes_at(self.file, place, 16)
            kind, inside, left = head[4:8], 8, ends[-1] - place
            size = int.from_bytes(head[:4], "big")
            if size == 1:
                size, inside = int.from_bytes(head[8:16], "big"), 16
            outer = len(ends) == 1
            if outer and not kind.isalnum():
                if not negligible(left, self.stop):
                    raise contradiction(self.path, f"{left} of its bytes belong to no box")
                return
            size = left if outer and size == 0 else size
            if not inside <= size <= left:
                name = kind.decode("ascii", "backslashreplace")
                found = f"its part {name!r} states {size} bytes, {left} are there"
                raise _damaged(self.path, found)
            yield kind, place + inside, place + size
            if kind in _FOLDERS or kind in _FRAGMENTS:
                ends.append(place + size)
                place += inside
            else:
                place += size

    def _read(self, kind: bytes, place: int, end: int) -> None:
        if kind in (b"ftyp", b"moov"):
            if kind in self._seen:
                raise contradiction(self.path, _SEVERAL)
            self._seen.add(kind)
        if kind == b"trak":
            self.tracks.append(_SoundTrack())
        elif kind == b"moof":
            self.fragments += 1
        elif kind == b"trun":
            self._bound(int.from_bytes(bytes_at(self.file, place + 4, 4), "big"))
        elif kind == b"mvhd":
            self.scale, _ = self._times(place)
        elif self.tracks and kind in _READERS:
            _READERS[kind](self, self.tracks[-1], place, end)

    def _bound(self, samples: int) -> int:
        """Refuse more samples than bytes: room for each would be made before it is read."""
        self._runs += samples
        if self._runs > self.stop:
            found = f"its tables state {self._runs} samples, it has {self.stop} bytes"
            raise _damaged(self.path, found)
        return samples

    def _times(self, place: int) -> tuple[int, int]:
        """Return the units a second and the duration in them, as two kinds of boxes state them."""
        data = bytes_at(self.file, place, 32).ljust(32, b"\0")
        scale, duration = struct.unpack(
            ">IQ" if data[0] else ">II", data[20 if data[0] else 12 :][: 12 if data[0] else 8]
        )
        unstated = duration in (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
        return scale, 0 if unstated else duration

    def _table(
        self, place: int, end: int, columns: str
    ) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        """Return a table that is preceded by its number of rows."""
        rows = int.from_bytes(bytes_at(self.file, place + 4, 4), "big")
        kind = np.dtype([(f"f{i}", column) for i, column in enumerate(columns.split())])
        size = rows * kind.itemsize
        if rows > _MOST_ENTRIES or place + 8 + size > end:
            raise _damaged(self.path, f"a table states {rows} rows, it holds fewer")
        return np.frombuffer(bytes_at(self.file, place + 8, size), kind)

    def _read_hdlr(self, track: _SoundTrack, place: int, end: int) -> None:
        track.sound |= bytes_at(self.file, place + 8, 4) == b"soun"

    def _read_mdhd(self, track: _SoundTrack, place: int, end: int) -> None:
        track.scale, track.stated = self._times(place)

    def _read_stts(self, track: _SoundTrack, place: int, end: int) -> None:
        table = self._table(place, end, ">u4 >u4")
        counts, lengths = (table[name].astype(np.float64) for name in ("f0", "f1"))
        track.timed, track.summed = int(counts.sum()), int(counts @ lengths)

    def _read_stsz(self, track: _SoundTrack, place: int, end: int) -> None:
        size, count = struct.unpack(">II", bytes_at(self.file, place + 4, 8).ljust(8, b"\0"))
        if not size and place + 12 + 4 * count > end:
            raise _damaged(self.path, f"a table states {count} rows, it holds fewer")
        track.samples = self._bound(count)

    def _read_elst(self, track: _SoundTrack, place: int, end: int) -> None:
        wide = bytes_at(self.file, place, 1) == b"\1"
        table = self._table(place, end, ">u8 >i8 >u4" if wide else ">u4 >i4 >u4")
        track.edits = [(int(row[0]), int(row[1])) for row in table if row[1] >= 0]

    def _read_stsd(self, track: _SoundTrack, place: int, end: int) -> None:
        track.encodings = int.from_bytes(bytes_at(self.file, place + 4, 4), "big")
        track.encrypted = bytes_at(self.file, place + 12, 4) in (b"enca", b"drms")

    def _read_dref(self, track: _SoundTrack, place: int, end: int) -> None:
        place += 8
        while place + 12 <= end:
            head = bytes_at(self.file, place, 12)
            if not head[11] & 1:
                raise contradiction(self.path, "it refers to another file for its content")
            place += max(12, int.from_bytes(head[:4], "big"))


_READERS: dict[bytes, Callable[[_Mp4, _SoundTrack, int, int], None]] = {
    b"dref": _Mp4._read_dref,
    b"elst": _Mp4._read_elst,
    b"hdlr": _Mp4._read_hdlr,
    b"mdhd": _Mp4._read_mdhd,
    b"stsd": _Mp4._read_stsd,
    b"stsz": _Mp4._read_stsz,
    b"stts": _Mp4._read_stts,
}


def _examine_mp4(path: str | Path, file: io.BufferedReader, name: str, stop: int) -> Container:
    tables = _Mp4(path, file, stop)
    sound = next((track for track in tables.tracks if track.sound), None)
    if sound is None or not sound.scale:  # the decoder will say that it holds no sound
        return Container(name, "mov", None)
    if sound.encrypted:
        raise AudioError(
            path,
            code="not_audio",
            found="its sound is encrypted",
            remedy="use a copy without copy protection",
        )
    if sound.encodings > 1:
        raise contradiction(path, "its sound is encoded in several ways")
    if tables.fragments:
        if sound.samples:
            raise contradiction(path, "it holds one recording in a table and another in fragments")
        return Container(name, "mov", None, (NO_LENGTH,))
    whole_s, stated_s = sound.summed / sound.scale, sound.stated / sound.scale
    if sound.timed != sound.samples:
        found = f"its tables state {sound.samples} and {sound.timed} samples"
        raise contradiction(path, found)
    if stated_s and abs(whole_s - stated_s) > max(SLACK_S, 0.01 * whole_s):
        found = f"its header states {stated_s:.2f} s, its tables {whole_s:.2f} s"
        raise contradiction(path, found)
    return Container(name, "mov", _edited(path, sound, whole_s, tables.scale))


def _edited(path: str | Path, sound: _SoundTrack, whole_s: float, scale: int) -> float:
    """Return the seconds of sound that the edit list leaves, which not every program obeys."""
    if not sound.edits:
        return whole_s
    duration, first = sound.edits[0]
    kept_s = whole_s - first / sound.scale
    if duration and scale:
        kept_s = min(kept_s, duration / scale)
    if len(sound.edits) > 1 or whole_s - kept_s > _TRIMMED_S:
        found = f"its edit list plays {max(kept_s, 0.0):.2f} s in {len(sound.edits)} parts of the "
        raise contradiction(path, found + f"{whole_s:.2f} s that it holds")
    return kept_s


# --- WebM, Matroska (RFC 9559) ---

_EBML, _SEGMENT, _CLUSTER, _INFO, _CHAPTERS, _VOID = (
    *(0x1A45DFA3, 0x18538067, 0x1F43B675, 0x1549A966, 0x1043A770, 0xEC),
)
_DURATION, _TICK_NS = 0x4489, 0x2AD7B1
_ORDERED = b"\x45\xdd\x81\x01"  # chapters that may play parts of other files


def _number(file: io.BufferedReader, place: int, *, marked: bool) -> tuple[int, int]:
    """Return a number of variable size and its size, 0 if there is none; -1 means unknown."""
    data = bytes_at(file, place, 8)
    size = 9 - data[0].bit_length() if data else 9
    if size > len(data):
        return 0, 0
    value = int.from_bytes(data[:size], "big")
    if marked:
        return value, size
    value &= (1 << 7 * size) - 1
    return (-1 if value == (1 << 7 * size) - 1 else value), size


def _elements(
    path: str | Path, file: io.BufferedReader, place: int, stop: int
) -> Iterator[tuple[int, int, int]]:
    """Yield the id, the content's first byte and the end of each element.

    An end is that which the element states, and may be beyond the last byte. Segments and clusters
    of unknown size are yielded, and so is what is in them.
    """
    count = 0
    while place < stop:
        count = _counted(path, count)
        name, first = _number(file, place, marked=True)
        size, second = _number(file, place + first, marked=False)
        if not first or not second:
            yield 0, place, stop
            return
        inside = place + first + second
        yield name, inside, (-1 if size < 0 else inside + size)
        place = inside if size < 0 or name == _SEGMENT else inside + size


def _examine_matroska(path: str | Path, file: io.BufferedReader, name: str, stop: int) -> Container:
    stated_s: float | None = None
    infos, end, last = 0, -1, 0
    for kind, place, after in _elements(path, file, 0, stop):
        last = after
        if kind == _EBML and place > 64 or kind == _SEGMENT and end >= 0:
            raise contradiction(path, _SEVERAL)
        if 0 <= end <= place and kind not in (_VOID, _SEGMENT) and not negligible(stop - end, stop):
            raise contradiction(path, f"{stop - end} of its bytes follow after the end")
        if kind == _SEGMENT:
            end = after if after >= 0 else 1 << 62
            if after > stop:
                found = f"it states {after} bytes, {stop} are there: it is cut off"
                raise _damaged(path, found)
        elif kind == _INFO:
            infos += 1
            stated_s = _stated_s(path, file, place, min(after, stop))
        elif kind == _CHAPTERS and _ORDERED in bytes_at(file, place, min(after - place, 1 << 20)):
            raise contradiction(path, "its chapters are played in an order of their own")
        elif kind == 0 and not negligible(stop - place, stop):
            raise contradiction(path, f"{stop - place} of its bytes belong to no part")
    if infos > 1:
        raise contradiction(path, "it states its duration several times")
    notes = () if stated_s is not None else (NO_LENGTH,)
    return Container(name, "matroska", stated_s, notes + ((NO_END,) if last > stop else ()))


def _stated_s(path: str | Path, file: io.BufferedReader, place: int, stop: int) -> float | None:
    """Return the duration in a description of a segment; None if it states none."""
    ticks, tick_ns = None, 1_000_000
    for kind, first, end in _elements(path, file, place, stop):
        data = bytes_at(file, first, max(0, min(end - first, 8)))
        if kind == _DURATION and len(data) in (4, 8):
            ticks = struct.unpack(">f" if len(data) == 4 else ">d", data)[0]
        elif kind == _TICK_NS:
            tick_ns = int.from_bytes(data, "big")
    if ticks is None:
        return None
    stated_s = float(ticks) * tick_ns / 1e9
    if not 0 <= stated_s < 1e9:
        raise _damaged(path, f"it states a duration of {stated_s:g} s")
    return stated_s


# --- AMR (RFC 4867, section 5) ---

_AMR, _AMR_WB = b"#!AMR\n", b"#!AMR-WB\n"
_AMR_SIZES = (13, 14, 16, 18, 20, 21, 27, 32, 6, *(1,) * 7)
_AMR_WB_SIZES = (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, *(1,) * 6)
_AMR_FRAME_S = 0.02


def _examine_amr(path: str | Path, file: io.BufferedReader, stop: int) -> Container:
    wide = bytes_at(file, 0, 9) == _AMR_WB
    sizes = _AMR_WB_SIZES if wide else _AMR_SIZES
    end, frames = len(_AMR_WB if wide else _AMR), 0
    file.seek(end)
    while end < stop:
        kind = int.from_bytes(file.read(1), "big")
        size = sizes[kind >> 3 & 15]
        if kind & 0x83:
            raise contradiction(path, f"{stop - end} of its bytes belong to no AMR frame")
        if end + size > stop:
            break
        end += size
        file.seek(size - 1, io.SEEK_CUR)
        frames = _counted(path, frames)
    return Container("AMR", "amr", frames * _AMR_FRAME_S, (NO_END,) if end < stop else (), end)
