"""Lay out FLAC and Ogg files, whose headers or pages say how long they are.

The decoder stops at the length that they state. So FLAC is decoded as if it stated none, and is
compared with it afterwards; of Ogg the packets are counted.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from nip_audio.audio._foreign import ogg_codec
from nip_audio.audio._layout import (
    NO_LENGTH,
    Layout,
    bytes_at,
    contradiction,
    negligible,
    patched,
)
from nip_audio.errors import AudioError

NO_END = "it breaks off without a mark of its end: read as far as it goes"
_PIECE = 1 << 20
_MOST_PAGES = 1 << 19
_CONTINUED, _FIRST, _LAST = 1, 2, 4  # marks of a page
_AUDIO = (b"OpusHead", b"\x01vorbis", b"\x7fFLAC", b"fLaC", b"Speex   ")
_PADDING = 8192  # samples that an encoder may add at the end; pages do not count them
_OPUS_SAMPLES = (  # at 48 kHz, by the first five bits of a packet
    *(480, 960, 1920, 2880) * 3,
    *(480, 960) * 2,
    *(120, 240, 480, 960) * 4,
)


def lay_out_flac(path: str | Path, file: io.BufferedReader, start: int, stop: int) -> Layout:
    """Return how a FLAC file is given to the decoder: as if it did not state its length.

    Args:
        path: The file, for messages.
        file: The file, open.
        start: Offset of its first byte.
        stop: Size of the file.

    Raises:
        AudioError: If it holds several recordings.
    """
    header = bytes_at(file, start, 26)
    if len(header) < 26 or header[4] & 0x7F:  # malformed, as the decoder will say
        return Layout(((start, stop),), stop)
    if _find(file, header[:4] + b"\0\0\0\x22", start + 26, stop) < stop:
        raise contradiction(path, "it holds several recordings one after the other")
    samples = int.from_bytes(header[21:26], "big") & (1 << 36) - 1
    unstated = bytes([header[21] & 0xF0, 0, 0, 0, 0])
    notes = () if samples else (NO_LENGTH,)
    return Layout(patched(stop, {start + 21: unstated}, start=start), stop, notes, samples)


def lay_out_ogg(path: str | Path, file: io.BufferedReader, start: int, stop: int) -> Layout:
    """Return how an Ogg file is given to the decoder.

    Args:
        path: The file, for messages.
        file: The file, open.
        start: Offset of the first page.
        stop: Size of the file.

    Raises:
        AudioError: If it holds several streams of audio, or if its packets hold more than its
            pages state.
    """
    stream: _Stream | None = None
    end = start
    lost, ended, whole = 0, False, True
    for page in _pages(path, file, start, stop):
        if isinstance(page, int):
            lost += page
            continue
        whole = page.stop <= stop
        if page.marks & _FIRST and page.body.startswith(_AUDIO):
            if stream is not None:
                raise contradiction(path, "it holds several streams of audio")
            if codec := ogg_codec(page.body):
                raise AudioError(
                    path,
                    code="not_audio",
                    found=f"it is {codec}, which is not decoded here",
                    remedy="convert it: ffmpeg -i IN.ogg OUT.flac",
                )
            stream = _Stream(page.serial, page.body)
        elif stream is not None and page.serial == stream.serial and whole:
            stream.add(page)
            ended = bool(page.marks & _LAST)
            end = page.stop
    if stream is None:
        return Layout(((start, stop),), stop)
    if not negligible(lost, stop - start):
        raise contradiction(path, f"{lost} of its bytes belong to no Ogg page")
    if stream.samples > stream.stated + _PADDING:
        raise contradiction(
            path,
            f"its pages state {stream.stated} samples, its packets hold {stream.samples}",
        )
    return Layout(((start, stop),), end, () if ended and whole else (NO_END,))


class _Page(NamedTuple):
    marks: int
    granule: int
    serial: int
    sizes: bytes
    body: bytes
    stop: int


def _pages(
    path: str | Path, file: io.BufferedReader, place: int, stop: int
) -> Iterator[_Page | int]:
    """Yield the pages, the last of which may be cut off, and numbers of bytes in between."""
    count = 0
    while place < stop:
        header = bytes_at(file, place, 27)
        if header[:5] != b"OggS\0" or len(header) < 27:
            after = _find(file, b"OggS\0", place + 1, stop)
            yield after - place
            place = after
            continue
        count += 1
        if count > _MOST_PAGES:
            raise AudioError(
                path,
                code="too_long",
                found=f"it has more than {_MOST_PAGES} Ogg pages",
                remedy="split it",
            )
        marks, granule, serial = struct.unpack("<BqI", header[5:18])
        sizes = file.read(header[26])
        place += 27 + header[26] + sum(sizes)
        yield _Page(marks, granule, serial, sizes, file.read(sum(sizes)), place)


class _Stream:
    """Counts the samples of a stream's packets, and those that its pages state.

    Attributes:
        serial: Number of the stream.
        samples: Samples in all packets.
        stated: Samples before the last page's end, as the page states it.
    """

    def __init__(self, serial: int, first: bytes) -> None:
        """Start with the first packet."""
        self.serial = serial
        self.samples = self.stated = 0
        self._headers = 2 if first.startswith(_AUDIO[0]) else 3
        self._sizes = (1 << (first[28] & 15), 1 << (first[28] >> 4)) if len(first) > 28 else (0, 0)
        self._codec = first[:8]
        self._modes: list[int] = []
        self._packet = b""
        self._packets = 1
        self._before: int | None = None
        self._offset: int | None = None

    def add(self, page: _Page) -> None:
        """Count the packets that end on a page."""
        place, before = 0, self.samples
        for size in page.sizes:
            if len(self._packet) < _PIECE:
                self._packet += page.body[place : place + size]
            place += size
            if size < 255:
                self._end_packet(self._packet)
                self._packet = b""
        if page.granule != -1 and self.samples > before:
            if self._offset is None:
                self._offset = max(0, page.granule - self.samples)
            self.stated = page.granule - self._offset

    def _end_packet(self, packet: bytes) -> None:
        self._packets += 1
        if self._packets <= self._headers:
            if packet.startswith(b"\x05vorbis"):
                self._modes = _vorbis_modes(packet)
        elif packet and self._codec == _AUDIO[0]:
            self.samples += _opus_samples(packet)
        elif packet and self._modes and not packet[0] & 1:
            mode = packet[0] >> 1 & (1 << (len(self._modes) - 1).bit_length()) - 1
            size = self._sizes[self._modes[mode % len(self._modes)]]
            self.samples += 0 if self._before is None else (self._before + size) // 4
            self._before = size


def _opus_samples(packet: bytes) -> int:
    """Return the number of samples at 48 kHz in an Opus packet (RFC 6716, section 3.1)."""
    frames = (1, 2, 2, packet[1] & 0x3F if len(packet) > 1 else 0)[packet[0] & 3]
    return frames * _OPUS_SAMPLES[packet[0] >> 3]


def _vorbis_modes(packet: bytes) -> list[int]:
    """Return which of two block sizes each mode of a Vorbis stream has.

    The modes end the setup header, so they are read from behind: they need nothing of what stands
    before them (Vorbis I specification, section 4.2.4).
    """
    bits = int.from_bytes(packet, "little")
    place = bits.bit_length() - 1  # the framing bit
    flags: list[int] = []
    best: list[int] = []
    while place >= 41 + 6 and len(flags) < 64:
        mode = bits >> (place - 41) & (1 << 41) - 1
        if mode >> 1 & (1 << 32) - 1 or mode >> 33 > 63:
            break
        place -= 41
        flags.insert(0, mode & 1)
        if (bits >> (place - 6) & 63) + 1 == len(flags):
            best = list(flags)
    return best


def _find(file: io.BufferedReader, what: bytes, place: int, stop: int) -> int:
    """Return the first offset of some bytes; the end if they do not occur."""
    while place < stop:
        piece = bytes_at(file, place, min(_PIECE + len(what), stop - place))
        if (at := piece.find(what)) >= 0:
            return place + at
        if len(piece) <= _PIECE:
            break
        place += _PIECE
    return stop
