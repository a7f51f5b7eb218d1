"""Read a gzip file at any place, without unpacking it, and no further than a bomb is worth."""

from __future__ import annotations

import bisect
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

_PIECE, _DECODED = 1 << 16, 1 << 20
_MOST_KEPT = 1000

_MAGIC = b"\x1f\x8b"


class Inflated:
    """Content of a gzip file, as a file that can be sought.

    Now and then the state of the decoder is kept (some 40 KB), so that reading backwards does not
    begin from the start again.

    Args:
        file: The gzip file, of one stream or several.
        most: Most bytes that a number of compressed bytes may hold.
        step: Bytes after which the state is kept; more where there are very many.

    Attributes:
        compressed: Number of compressed bytes that were read to get here.
    """

    def __init__(self, file: BinaryIO, most: Callable[[int], int], *, step: int = 1 << 24) -> None:
        """Start before the first byte."""
        self._file, self._most, self._step = file, most, step
        self._decoder = zlib.decompressobj(wbits=31)
        self._place = self.compressed = 0
        self._kept: list[tuple[int, int, Any]] = [(0, 0, self._decoder.copy())]
        self._given = b""  # compressed bytes that were read, and not decoded
        self._rest = memoryview(b"")  # content that was decoded, and that nobody has read
        self._ended = False

    def tell(self) -> int:
        """Return the offset."""
        return self._place

    def seek(self, place: int, whence: int = 0) -> int:
        """Go to an offset from the start; one beyond the end is the end.

        Raises:
            ValueError: If the offset is not counted from the start.
        """
        if whence != 0 or place < 0:
            raise ValueError(f"got offset {place} from {whence}, expected one from the start")
        kept = self._kept[bisect.bisect_right(self._kept, place, key=lambda one: one[0]) - 1]
        if place < self._place or kept[0] > self._place:
            self._place, self.compressed, decoder = kept
            self._decoder = decoder.copy()
            self._file.seek(self.compressed)
            self._given, self._rest, self._ended = b"", memoryview(b""), False
        while self._place < place and self.read(min(place - self._place, _DECODED)):
            pass
        return self._place

    def read(self, count: int) -> bytes:
        """Return so many bytes, or as many as there are.

        Raises:
            zlib.error: If the file is damaged.
            EOFError: If it ends too early.
            OverflowError: If it holds more than it may.
        """
        parts = []
        while count > 0 and (self._rest or self._advance()):
            part, self._rest = self._rest[:count], self._rest[count:]
            self._place += len(part)
            count -= len(part)
            parts.append(part)
        return b"".join(parts)

    def _advance(self) -> bool:
        """Decode the next piece; return whether there is one."""
        while not self._rest and not self._ended:
            if not self._given:
                self._given = self._file.read(_PIECE)
                self.compressed += len(self._given)
                if not self._given:
                    raise EOFError("it ends in the middle")
            self._rest = memoryview(self._decoder.decompress(self._given, _DECODED))
            self._given = self._decoder.unconsumed_tail
            if self._decoder.eof:
                self._next_stream()
            if self._place + len(self._rest) > self._most(self.compressed):
                raise OverflowError("it holds more than it may")
            end = self._place + len(self._rest)
            if end >= self._kept[-1][0] + self._step and not self._ended:
                self._kept.append((end, self.compressed - len(self._given), self._decoder.copy()))
                if len(self._kept) > _MOST_KEPT:
                    self._kept, self._step = self._kept[::2], 2 * self._step
        return bool(self._rest)

    def _next_stream(self) -> None:
        """Go on with the stream that follows, if there is one; zeros fill up the last one."""
        given = self._decoder.unused_data.lstrip(b"\0")
        while not given and (piece := self._file.read(_PIECE)):
            self.compressed += len(piece)
            given = piece.lstrip(b"\0")
        if len(given) == 1:
            given += self._file.read(1)
            self.compressed += len(given) - 1
        if given and not given.startswith(_MAGIC):
            raise zlib.error("something else follows after its end")
        self._ended = not given
        self._given = given
        self._decoder = zlib.decompressobj(wbits=31)
