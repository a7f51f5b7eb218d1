"""Decode the sound of MP4, Matroska and AMR files with PyAV, which brings FFmpeg's libraries.

FFmpeg can open addresses, playlists and files that a file names, and has decoders that few people
use. Here it gets the bytes of one file, one demuxer, a short list of decoders, and nothing else.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nip_audio.audio._containers import SLACK_S, Container
from nip_audio.audio._layout import View, contradiction, size_of
from nip_audio.errors import AudioError

_CODECS = {
    **{"aac": "AAC", "alac": "ALAC", "mp3": "MP3", "mp3float": "MP3", "flac": "FLAC"},
    **{"opus": "OPUS", "libopus": "OPUS", "vorbis": "VORBIS", "amrnb": "AMR", "amrwb": "AMR_WB"},
    **{f"pcm_{kind}": f"PCM_{kind.upper()}" for kind in ("u8", "s16le", "s16be", "s24le", "s24be")},
    **{f"pcm_{kind}": f"PCM_{kind.upper()}" for kind in ("s32le", "s32be", "f32le", "f32be")},
}
_FULL_SCALE = {"u1": 1 << 7, "i2": 1 << 15, "i4": 1 << 31}


def has_pyav() -> bool:
    """Tell whether PyAV is installed, and loads."""
    try:
        import av  # noqa: F401 - late: no other format needs it
    except ImportError:
        return False
    return True


class Track:
    """The one track of sound of a file, read forwards, as soundfile reads a file.

    Args:
        path: The file, for messages.
        file: The file, open.
        container: What it states of itself.
        longest: Number of samples to state if it states none.

    Attributes:
        samplerate: Sample rate of the first frame.
        channels: Number of channels of the first frame.
        frames: Number of samples that the file states.
        format: Container.
        subtype: Codec.
        slack: Number of samples by which lengths may differ.

    Raises:
        AudioError: With code ``not_audio`` if there is no sound that is decoded here, or
            ``damaged`` if there are several tracks, or it cannot be decoded.
    """

    def __init__(
        self, path: str | Path, file: io.BufferedReader, container: Container, *, longest: int
    ) -> None:
        """Decode the first frame, since what a header says of rate and channels may be wrong."""
        import av

        self._path, self._container = path, container
        self._failures = (av.FFmpegError, PermissionError, UnicodeError)
        self.format = container.name
        self.samplerate = self.channels = 0
        self._end_s: float | None = None
        self._rest: NDArray[np.float32] = np.zeros((0, 1), np.float32)
        stop = container.stop or size_of(file)
        try:
            self._file = av.open(
                View(file, ((0, stop),)),
                "r",
                format=container.demuxer,
                container_options={
                    "codec_whitelist": ",".join(_CODECS),
                    "format_whitelist": container.demuxer,
                    "protocol_whitelist": "none",
                },
                metadata_errors="replace",
                io_open=_open_nothing,
            )
        except self._failures as err:
            raise self._damaged("it cannot be opened", err) from err
        try:
            stream = self._choose()
            self._decoded = self._decode(stream)
            self._rest = next(self._decoded, self._rest)
        except BaseException:
            self._file.close()
            raise
        if not self.samplerate:
            self.samplerate, self.channels = stream.sample_rate, stream.channels
        stated_s = container.stated_s
        self.frames = longest if stated_s is None else round(stated_s * self.samplerate)
        self.slack = round(SLACK_S * self.samplerate)

    def __enter__(self) -> Self:
        """Return the track."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Free what the decoder holds."""
        self._file.close()

    def read(self, count: int, dtype: str, *, always_2d: bool = True) -> NDArray[np.float32]:
        """Return the next samples (count, channels); fewer, or none, at the end.

        Args:
            count: Number of samples.
            dtype: Ignored: samples are float32.
            always_2d: Ignored: there is always an axis of channels.
        """
        parts, missing = [], count
        while missing > 0 and (len(self._rest) or self._advance()):
            part, self._rest = self._rest[:missing], self._rest[missing:]
            parts.append(part)
            missing -= len(part)
        return np.concatenate(parts) if parts else np.zeros((0, max(1, self.channels)), np.float32)

    def seek(self, place: int) -> None:
        """Go forwards to a sample, by decoding what is before it."""
        while place > 0 and (len(self._rest) or self._advance()):
            skipped = min(place, len(self._rest))
            self._rest = self._rest[skipped:]
            place -= skipped

    def check_end(self) -> None:
        """Refuse a file that holds more sound than it states.

        Raises:
            AudioError: With code ``damaged``.
        """
        stated_s = self._container.stated_s
        if stated_s is not None and len(self.read(self.slack + 1, "float32")) > self.slack:
            raise contradiction(self._path, f"it states {stated_s:.2f} s, it holds more")

    def _advance(self) -> bool:
        rest = next(self._decoded, None)
        if rest is None:
            return False
        self._rest = rest
        return True

    def _choose(self) -> Any:
        """Return the only stream of sound, ready to be decoded."""
        streams = self._file.streams.audio
        if not streams:
            raise AudioError(
                self._path,
                code="not_audio",
                found="it holds no sound",
                remedy="pass a recording with sound, or remove it",
            )
        if len(streams) > 1:
            raise contradiction(self._path, f"it holds {len(streams)} streams of audio")
        stream: Any = streams[0]
        codec = "unknown" if stream.codec_context is None else stream.codec_context.name
        if codec not in _CODECS:
            raise AudioError(
                self._path,
                code="not_audio",
                found=f"its sound is encoded as {codec}, which is not decoded here",
                remedy="convert it: ffmpeg -i IN OUT.flac",
            )
        self.subtype = _CODECS[codec]
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"err_detect": "explode"}
        return stream

    def _decode(self, stream: Any) -> Iterator[NDArray[np.float32]]:
        """Yield the samples (N, channels) of each frame."""
        try:
            for packet in self._file.demux(stream):
                if packet.is_corrupt:
                    raise self._damaged("it is audio, but decoding fails in the middle")
                for frame in packet.decode():
                    self._compare(frame)
                    yield _samples(frame)
        except self._failures as err:
            raise self._damaged("it is audio, but decoding fails in the middle", err) from err

    def _compare(self, frame: Any) -> None:
        """Refuse a frame that does not follow the one before."""
        rate, channels = frame.sample_rate, frame.layout.nb_channels
        if not self.samplerate:
            self.samplerate, self.channels = rate, channels
        if (rate, channels) != (self.samplerate, self.channels):
            raise contradiction(self._path, "its sample rate or channels change in the middle")
        if frame.pts is None:
            return
        start_s = float(frame.pts * frame.time_base)
        if self._end_s is not None and abs(start_s - self._end_s) > SLACK_S:
            found = f"its time stamps jump from {self._end_s:.2f} to {start_s:.2f} s"
            raise contradiction(self._path, found)
        self._end_s = start_s + frame.samples / max(1, rate)

    def _damaged(self, found: str, err: Exception | None = None) -> AudioError:
        reason = "" if err is None else f" ({getattr(err, 'strerror', None) or err})"
        return AudioError(
            self._path, code="damaged", found=found + reason, remedy="copy or record it again"
        )


def _open_nothing(*_: object) -> None:
    """Refuse the file or address that a file names."""
    raise PermissionError("it refers to another file")


def _samples(frame: Any) -> NDArray[np.float32]:
    """Return the samples (N, channels) of a frame, in [-1, 1]."""
    values = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(frame.samples, -1)
    kind = values.dtype.str[1:]
    if kind not in _FULL_SCALE:
        return np.asarray(values, np.float32)
    scaled = values.astype(np.float64) - (_FULL_SCALE[kind] if kind == "u1" else 0)
    return np.asarray(scaled / _FULL_SCALE[kind], np.float32)
