"""What the decoder is given: a file as it is, or with a header that says what is there.

Programs disagree about a file whose header contradicts its content: some play what the header
states, others what is there. An attacker can use that to be heard where nobody has looked. So a
contradiction is an error, while a header that states no length, as a recorder that crashed or a
pipe leaves it, is given one.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nip_audio.errors import AudioError

NO_LENGTH = "the header states no length: read to the end of the file"

_END_BYTES, _PIECE = 1 << 14, 1 << 9
_FARTHEST = 1 << 62

Part = tuple[int, int] | bytes
"""First byte of a part of a file and the one after the last, or bytes instead of a part."""


@dataclass(frozen=True)
class Layout:
    """What the decoder is given.

    Attributes:
        parts: Parts of the file, and bytes instead of others, in order.
        stop: Offset in the file where the sound ends.
        notes: What was found, in words.
        samples: Samples that the header states. The decoder is not told, so that it goes on as long
            as there is sound, which is then compared. 0 if the header does not state it; None if
            the decoder is told.
    """

    parts: tuple[Part, ...]
    stop: int
    notes: tuple[str, ...] = ()
    samples: int | None = None


class View:
    """File object without a name, so that the content alone tells the format.

    Args:
        file: File that the parts belong to.
        parts: What is read, in order.
        slowly: Whether to hand over the end of the file in small pieces to a decoder that asks for
            more than it needs, so that ``furthest`` says what it needs. Only for decoders that ask
            again.

    Attributes:
        furthest: Offset in the file after the last byte read so far.
    """

    def __init__(
        self, file: io.BufferedReader, parts: Sequence[Part], *, slowly: bool = False
    ) -> None:
        """Start at the first byte of the first part."""
        self.furthest = 0
        self._slowly = slowly
        self._file = file
        self._parts: list[tuple[int, int, Part]] = []
        self._place = self._size = 0
        for part in parts:
            length = len(part) if isinstance(part, bytes) else part[1] - part[0]
            self._parts.append((self._size, self._size + length, part))
            self._size += length

    def forget(self) -> None:
        """Count what is read only from here on, since opening a file reads here and there."""
        self.furthest = 0
        for start, stop, part in self._parts:
            if not isinstance(part, bytes) and start < self._place:
                self.furthest = part[0] + min(self._place, stop) - start

    def tell(self) -> int:
        """Return the offset."""
        return self._place

    def seek(self, offset: int, whence: int = 0) -> int:
        """Seek to an offset; one outside any file, from a wrong header, changes nothing."""
        place = offset + (0, self._place, self._size)[whence]
        if 0 <= place < _FARTHEST:
            self._place = place
        return self._place

    def read(self, count: int) -> bytes:
        """Return so many bytes, or as many as there are."""
        buffer = bytearray(count)
        return bytes(buffer[: self.readinto(memoryview(buffer))])

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer as far as the parts go; return the number of bytes."""
        target, done = memoryview(buffer).cast("B"), 0
        if self._slowly and self._size - self._place < _END_BYTES:
            target = target[:_PIECE]
        for start, stop, part in self._parts:
            count = min(stop - self._place, len(target) - done)
            if self._place < start or count <= 0:
                continue
            first = self._place - start
            if isinstance(part, bytes):
                target[done : done + count] = part[first : first + count]
                read = count
            else:
                self._file.seek(part[0] + first)
                read = self._file.readinto(target[done : done + count])
                self.furthest = max(self.furthest, part[0] + first + read)
            self._place += read
            done += read
            if read < count:  # the file has become shorter
                break
        return done


def patched(stop: int, changes: Mapping[int, bytes], *, start: int = 0) -> tuple[Part, ...]:
    """Return the parts of a file in which some bytes are replaced.

    Args:
        stop: Offset after the last byte.
        changes: New bytes by the offset of those that they replace.
        start: Offset of the first byte.
    """
    parts: list[Part] = []
    for place in sorted(changes):
        parts += [(start, place), changes[place]]
        start = place + len(changes[place])
    return (*parts, (start, stop))


def bytes_at(file: io.BufferedReader, place: int, count: int) -> bytes:
    """Return so many bytes of a file from an offset on, or as many as there are."""
    if place >= _FARTHEST:  # a header may state anything
        return b""
    file.seek(place)
    return file.read(count)


def size_of(file: io.BufferedReader) -> int:
    """Return the size of an open file in bytes, and go to its start."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    return size


def negligible(unread: int, size: int) -> bool:
    """Tell whether so many bytes of a file are too few to hold words: tags and filling bytes."""
    return unread <= max(1024, size // 100)


def contradiction(path: str | Path, found: str) -> AudioError:
    """Return the error for a file that programs play differently.

    Args:
        path: The file.
        found: What contradicts what, in words.
    """
    return AudioError(
        path,
        code="damaged",
        found=f"{found}, so that programs play it differently",
        remedy="convert it (ffmpeg -i IN OUT.flac), listen to the result and use that",
    )
