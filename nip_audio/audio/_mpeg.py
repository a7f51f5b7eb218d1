"""Lay out MP3 files: count their frames, since only some headers state how many there are.

The decoder estimates the length of a file without such a header from the bit rate of its first
frame, and stops there.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from nip_audio.audio._layout import Layout, bytes_at, contradiction, negligible
from nip_audio.errors import AudioError

_RATES_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_KBITS = {  # by whether it is MPEG 1, and layer
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_PIECE = 1 << 16
_MOST_LOST = 1 << 18  # bytes in which a frame is looked for
_MOST_FRAMES = 1 << 20
_MOST_TAGS = 64
# a tag without content: without one, libsndfile first looks for files named "._" wherever it runs
_ID3 = b"ID3\4\0\0\0\0\0\x40" + bytes(64)
_COUNT = b"Xing\0\0\0\1"  # followed by the number of frames


class _Frame(NamedTuple):
    """A frame; ``stream`` is equal for all frames of a stream."""

    place: int
    size: int
    stream: tuple[int, int, int, bool]
    bitrate: int

    @property
    def stop(self) -> int:
        return self.place + self.size


def starts_mpeg(header: bytes) -> bool:
    """Tell whether bytes start like an MP3 frame."""
    return len(header) >= 2 and header[0] == 0xFF and header[1] & 0xE0 == 0xE0


def after_id3(file: io.BufferedReader, place: int) -> int:
    """Return the offset after the ID3 tags, version 2, at an offset."""
    for _ in range(_MOST_TAGS):
        tag = bytes_at(file, place, 10)
        if len(tag) < 10 or tag[:3] != b"ID3":
            break
        size = 0
        for byte in tag[6:]:
            size = size << 7 | byte & 0x7F
        place += 10 + size + 10 * (tag[5] >> 4 & 1)
    return place


def lay_out_mpeg(
    path: str | Path, file: io.BufferedReader, start: int, stop: int, *, notes: tuple[str, ...] = ()
) -> Layout:
    """Return how an MP3 file is given to the decoder: with a header that states its length.

    Args:
        path: The file, for messages.
        file: The file, open.
        start: Offset of the first frame.
        stop: Offset after the last.
        notes: What was found before, in words.

    Raises:
        AudioError: If its header and its frames contradict each other, or it holds several streams.
    """
    stream = _Stream(path, file)
    for frame in _frames(file, start, stop):
        if isinstance(frame, int):
            stream.lost += frame
        else:
            stream.add(frame)
    if stream.first is None:
        return Layout((_ID3, (start, stop)), stop, notes)
    if not negligible(stream.lost, stop - start):
        raise contradiction(path, f"{stream.lost} of its bytes belong to no MP3 frame")
    header = stream.header()
    return Layout((_ID3, *header, (stream.begin, stop)), stream.end, notes)


class _Stream:
    """Counts the frames of a file.

    Attributes:
        first: The first frame; None before it.
        begin: Offset of the first frame that is given to the decoder.
        end: Offset after the last frame.
        lost: Number of bytes that belong to no frame.
    """

    def __init__(self, path: str | Path, file: io.BufferedReader) -> None:
        """Start before the first frame."""
        self.first: _Frame | None = None
        self.begin = self.end = self.lost = 0
        self._path, self._file = path, file
        self._stated: int | None = None
        self._count = 0
        self._bitrates: set[int] = set()

    def add(self, frame: _Frame) -> None:
        """Count a frame."""
        self.end = frame.stop
        if self.first is None:
            self.first, self.begin = frame, frame.place
            self._stated = _stated(bytes_at(self._file, frame.place, min(frame.size, 200)))
            if self._stated is not None:
                return
        if frame.stream != self.first.stream:
            raise contradiction(self._path, "it holds several streams one after the other")
        if self._count == _MOST_FRAMES:
            raise AudioError(
                self._path,
                code="too_long",
                found=f"it has more than {_MOST_FRAMES} MP3 frames",
                remedy="split it",
            )
        self._count += 1
        self._bitrates.add(frame.bitrate)

    def header(self) -> tuple[bytes, ...]:
        """Return a frame that states the number of frames, unless the file has one.

        Raises:
            AudioError: If the file states fewer frames than it has, or cannot state it.
        """
        if self.first is None:
            return ()
        if self._stated:
            if self._count > self._stated + max(2, self._stated // 100):
                raise contradiction(
                    self._path,
                    f"its header states {self._stated} frames, it holds {self._count}",
                )
            return ()
        if self.first.stream[1] != 3:  # layers 1 and 2 cannot state it
            if len(self._bitrates) > 1:
                raise contradiction(self._path, "its header does not state how long it is")
            return ()
        if self._stated is not None:  # a header without the number
            self.begin += self.first.size
        return (_count_header(bytes_at(self._file, self.first.place, 4), self._count),)


def _frames(file: io.BufferedReader, place: int, stop: int) -> Iterator[_Frame | int]:
    """Yield the frames, and numbers of bytes in between that belong to none and to no tag."""
    lost = tags = 0
    while place < stop and lost < _MOST_LOST:
        frame = _frame(file, place, stop)
        if frame is not None:
            yield frame
            place = frame.stop
        elif tags < _MOST_TAGS and (after := _after_tag(file, place)) > place:
            tags, place = tags + 1, after
        else:
            after = _search(file, place + 1, min(stop, place + _MOST_LOST))
            yield after - place
            lost, place = lost + after - place, after
    if place < stop:
        yield stop - place


def _frame(file: io.BufferedReader, place: int, stop: int) -> _Frame | None:
    """Return the frame at an offset; None if there is no whole one."""
    header = bytes_at(file, place, 4)
    if len(header) < 4 or not starts_mpeg(header):
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    rate, bitrate = header[2] >> 2 & 3, header[2] >> 4
    if version == 1 or layer == 4 or rate == 3 or bitrate in (0, 15):
        return None
    size = _size(version, layer, rate, bitrate) + (header[2] >> 1 & 1) * (4 if layer == 1 else 1)
    stream = (version, layer, rate, header[3] >> 6 == 3)
    return _Frame(place, size, stream, bitrate) if place + size <= stop else None


def _size(version: int, layer: int, rate: int, bitrate: int) -> int:
    bits = 1000 * _KBITS[version == 3, layer][bitrate - 1]
    hz = _RATES_HZ[version][rate]
    if layer == 1:
        return 12 * bits // hz * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // hz


def _search(file: io.BufferedReader, place: int, stop: int) -> int:
    """Return the offset of the next frame that is followed by another, or by the end."""
    while place < stop:
        piece = bytes_at(file, place, min(_PIECE, stop - place))
        at = piece.find(b"\xff")
        while at >= 0:
            found = _frame(file, place + at, stop)
            if found is not None:
                after = _frame(file, found.stop, stop)
                if found.stop == stop or (after is not None and after.stream == found.stream):
                    return place + at
            at = piece.find(b"\xff", at + 1)
        if not piece:
            break
        place += len(piece)
    return stop


def _after_tag(file: io.BufferedReader, place: int) -> int:
    """Return the offset after the tag at an offset; the same if there is none."""
    head = bytes_at(file, place, 16)
    if head[:3] == b"TAG":
        return place + 128
    if head[:8] == b"APETAGEX":
        return place + 32 + int.from_bytes(head[12:16], "little")
    return after_id3(file, place)


def _stated(frame: bytes) -> int | None:
    """Return the number of frames in a first frame that holds it; None for one with sound."""
    for name, flag, number in ((b"Xing", 7, 8), (b"Info", 7, 8), (b"VBRI", None, 14)):
        at = frame.find(name, 4, 48)
        if at < 0:
            continue
        if flag is not None and not frame[at + flag : at + flag + 1] > b"\0":
            return 0
        if flag is not None and not frame[at + flag] & 1:
            return 0
        return int.from_bytes(frame[at + number : at + number + 4], "big")
    return None


def _count_header(header: bytes, count: int) -> bytes:
    """Return a frame that states the number of frames, made of another one's header."""
    version, layer, rate = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3), header[2] >> 2 & 3
    bitrate = next(i for i in range(1, 15) if _size(version, layer, rate, i) >= 64)
    mono = header[3] >> 6 == 3
    inside = (17 if mono else 32) if version == 3 else (9 if mono else 17)
    start = bytes([0xFF, header[1] | 1, bitrate << 4 | rate << 2, header[3]])
    frame = start + bytes(inside) + _COUNT + count.to_bytes(4, "big")
    return frame.ljust(_size(version, layer, rate, bitrate), b"\0")
