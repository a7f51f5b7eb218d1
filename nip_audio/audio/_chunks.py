"""Lay out files made of chunks, WAV, RF64, W64, AIFF and CAF, and those with one header: AU, NIST.

The size that a header states for the sound is compared with the bytes that are there.
"""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass, replace
from pathlib import Path

from nip_audio.audio._layout import NO_LENGTH, Layout, bytes_at, contradiction, negligible, patched
from nip_audio.audio._mpeg import lay_out_mpeg
from nip_audio.errors import AudioError

_MOST_CHUNKS = 4096
_STREAMED = 0x7F000000  # sizes from here on are those that programs write into a pipe
_WIDE = 0xFFFFFFFF  # RF64: the size is in the chunk ds64
_MPEG_TAGS = (0x50, 0x55)
_EXTENSIBLE = 0xFFFE
_PCM = (b"NONE", b"sowt", b"twos")


@dataclass(frozen=True)
class _Kind:
    """How a container writes its chunks.

    Attributes:
        types: What may stand where the container names its type; empty if nothing stands there.
        order: Byte order, as in ``struct``.
        start: Offset of the first chunk.
        size: Type of a chunk's size, as in ``struct``.
        align: Chunks start at multiples of so many bytes.
        sound: Name of the chunk that holds the sound.
        description: Name of the chunk that describes it.
        name: Number of bytes of a chunk's name.
        inside: Number of bytes of the sound's chunk before the sound.
        whole: Whether a chunk's size counts its header.
    """

    types: tuple[bytes, ...]
    order: str = "<"
    start: int = 12
    size: str = "I"
    align: int = 2
    sound: bytes = b"data"
    description: bytes = b"fmt "
    name: int = 4
    inside: int = 0
    whole: bool = False

    @property
    def header(self) -> int:
        """Number of bytes before the content of a chunk."""
        return self.name + struct.calcsize(self.size)

    def written(self, size: int) -> bytes:
        """Return the bytes that state the size of a chunk's content."""
        return struct.pack(self.order + self.size, size + self.header * self.whole)


_RIFF = _Kind((b"WAVE",))
CHUNKED = {
    b"RIFF": _RIFF,
    b"RIFX": replace(_RIFF, order=">"),
    b"RF64": _RIFF,
    b"BW64": _RIFF,
    b"riff": _Kind((), "<", 40, "Q", 8, name=16, whole=True),
    b"FORM": _Kind((b"AIFF", b"AIFC"), ">", sound=b"SSND", description=b"COMM", inside=8),
    b"caff": _Kind((), ">", 8, "Q", 1, description=b"desc", inside=4),
}
"""Containers made of chunks, by the first four bytes."""


@dataclass(frozen=True)
class _Chunk:
    name: bytes
    place: int
    body: int
    size: int


def lay_out_chunks(
    path: str | Path, file: io.BufferedReader, start: int, stop: int
) -> Layout | None:
    """Return how a file made of chunks is given to the decoder; None if it holds no sound.

    Args:
        path: The file, for messages.
        file: The file, open.
        start: Offset of the container.
        stop: Size of the file.

    Raises:
        AudioError: If its sizes and its content contradict each other.
    """
    kind = CHUNKED[bytes_at(file, start, 4)]
    if kind.types and bytes_at(file, start + 8, 4) not in kind.types:
        return None
    chunks, stray = _chunks(path, kind, file, start, stop)
    sounds = [chunk for chunk in chunks if chunk.name == kind.sound]
    descriptions = [chunk for chunk in chunks if chunk.name == kind.description]
    if len(sounds) > 1 or len(descriptions) > 1 or any(c.name in CHUNKED for c in chunks):
        raise contradiction(path, "it holds several recordings one after the other")
    if not sounds or not descriptions:
        return None
    sound, description = sounds[0], descriptions[0]
    first = sound.body + kind.inside
    end, notes = _end(path, file, max(0, sound.size - kind.inside), (first, stray, stop))
    if end - first > 0 and kind.sound == b"SSND":
        _check_frames(path, file, description, end - first)
    if kind.description == b"fmt " and _is_mpeg(file, description, kind):
        return lay_out_mpeg(path, file, first, end, notes=(*notes, "MP3 in a WAV file"))
    changes: dict[int, bytes] = {}
    if notes:
        wide = next((c for c in chunks if c.name == b"ds64" and c.size >= 24), None)
        size = end - sound.body
        if wide is not None:
            changes[wide.body + 8] = struct.pack("<Q", size)
            size = _WIDE
        changes[sound.place + kind.name] = kind.written(size)
    if description.place < sound.place:
        return Layout(patched(stop, changes, start=start), end, notes)
    header = (start, start + kind.start)
    described = (description.place, description.body + description.size + description.size % 2)
    return Layout(
        (header, described, *patched(end, changes, start=sound.place)),
        end,
        (*notes, "the header comes after the sound"),
    )


def _chunks(
    path: str | Path, kind: _Kind, file: io.BufferedReader, start: int, stop: int
) -> tuple[list[_Chunk], int]:
    """Return the chunks, and the offset from which on there are none."""
    chunks: list[_Chunk] = []
    place, wide = start + kind.start, None
    while place + kind.header <= stop:
        if len(chunks) == _MOST_CHUNKS:
            raise contradiction(path, f"it has more than {_MOST_CHUNKS} chunks")
        header = bytes_at(file, place, kind.header)
        name, body = header[:4], place + kind.header
        (size,) = struct.unpack(kind.order + kind.size, header[kind.name :])
        size = max(0, size - kind.header * kind.whole)
        if name == b"ds64" and size >= 24:
            (wide,) = struct.unpack("<Q", bytes_at(file, body + 8, 8).ljust(8, b"\0"))
        elif name == kind.sound and size == _WIDE and wide is not None:
            size = wide
        if not all(0x20 <= byte < 0x7F for byte in name):
            break
        if name != kind.sound and body + size > stop:
            break
        chunks.append(_Chunk(name, place, body, size))
        place = body + size
        while (place - start) % kind.align and bytes_at(file, place, 1) == b"\0":
            place += 1  # some programs write an odd chunk without the byte that fills it up
    return chunks, place


def _end(
    path: str | Path, file: io.BufferedReader, stated: int, places: tuple[int, int, int]
) -> tuple[int, tuple[str, ...]]:
    """Return where the sound ends, and what is to be noted.

    Args:
        path: The file, for messages.
        file: The file, open.
        stated: Number of bytes of the sound that its header states.
        places: Where the sound begins, where what belongs to no chunk begins, and the file's size.
    """
    first, stray, stop = places
    there, unknown = max(0, stop - first), stop - stray
    if there == 0:
        return stop, ()
    if stated > there:
        if stated >= _STREAMED:
            return stop, (NO_LENGTH,)
        if stated - there > stated // 100:
            raise AudioError(
                path,
                code="damaged",
                found=f"it is cut off: its header states {stated} bytes of sound, {there} are "
                "there",
                remedy="copy or record it again",
            )
        return stop, ("the header states more audio than the file holds",)
    if negligible(unknown, there) or _is_empty(file, stray, stop):
        return first + stated, ()
    if stated == 0:
        return stop, (NO_LENGTH,)
    raise contradiction(
        path,
        f"its header states {stated} bytes of sound, and {unknown} bytes follow that belong to "
        "nothing",
    )


def _is_empty(file: io.BufferedReader, start: int, stop: int) -> bool:
    file.seek(start)
    while start < stop and (piece := file.read(1 << 20)):
        if any(piece):
            return False
        start += len(piece)
    return True


def _is_mpeg(file: io.BufferedReader, description: _Chunk, kind: _Kind) -> bool:
    data = bytes_at(file, description.body, min(description.size, 26))
    tag = int.from_bytes(data[:2], "little" if kind.order == "<" else "big")
    return (data[24:26] if tag == _EXTENSIBLE else data[:2]) in [
        struct.pack(kind.order + "H", mpeg) for mpeg in _MPEG_TAGS
    ]


def _check_frames(
    path: str | Path, file: io.BufferedReader, description: _Chunk, size: int
) -> None:
    """Compare the number of samples that an AIFF file states with the size of its sound."""
    data = bytes_at(file, description.body, 22)
    if len(data) < 18 or (description.size >= 22 and data[18:22] not in _PCM):
        return
    channels, frames, bits = struct.unpack(">HIH", data[:8])
    stated = frames * channels * -(-bits // 8)
    if 0 < stated < size and not negligible(size - stated, size):
        raise contradiction(
            path, f"its header states {stated} bytes of sound in one place, {size} in another"
        )


def lay_out_au(path: str | Path, file: io.BufferedReader, start: int, stop: int) -> Layout:
    """Return how an AU file is given to the decoder.

    Args:
        path: The file, for messages.
        file: The file, open.
        start: Offset of the header.
        stop: Size of the file.

    Raises:
        AudioError: If its size and its content contradict each other.
    """
    order = "<" if bytes_at(file, start, 4) == b"dns." else ">"
    offset, stated = struct.unpack(order + "II", bytes_at(file, start + 4, 8).ljust(8, b"\0"))
    first = start + offset
    end, notes = _end(path, file, stated, (first, first + stated, stop))
    changes = {start + 8: struct.pack(order + "I", 0xFFFFFFFF)} if notes else {}
    return Layout(patched(stop, changes, start=start), end, notes)


def lay_out_nist(path: str | Path, file: io.BufferedReader, start: int, stop: int) -> Layout:
    """Return how a NIST SPHERE file is given to the decoder.

    Args:
        path: The file, for messages.
        file: The file, open.
        start: Offset of the header.
        stop: Size of the file.

    Raises:
        AudioError: If its number of samples and its content contradict each other.
    """
    header = bytes_at(file, start, 1024)
    named = [
        re.search(rb"^%s -i (\d{1,12})\s*$" % name, header, re.MULTILINE)
        for name in (b"sample_count", b"channel_count", b"sample_n_bytes")
    ]
    size = re.match(rb"NIST_1A\s+(\d{1,9})\s", header)
    numbers = [int(found.group(1)) for found in (*named, size) if found is not None]
    if len(numbers) < 4:  # the decoder will say so, or goes to the end of the file
        return Layout(((start, stop),), stop)
    first, stated = start + numbers[3], numbers[0] * numbers[1] * numbers[2]
    end, notes = _end(path, file, stated, (first, min(first + stated, stop), stop))
    return Layout(((start, stop),), end, notes)
