"""Decode a file that may hold anything, with bounded time and memory.

What a header states is checked before it is believed. Decoding goes block by block and stops at the
longest duration; statistics of all channels are counted on the way.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from nip_audio.audio._chunks import CHUNKED, lay_out_au, lay_out_chunks, lay_out_nist
from nip_audio.audio._containers import container_of, examine
from nip_audio.audio._foreign import foreign_format
from nip_audio.audio._layout import (
    Layout,
    View,
    bytes_at,
    contradiction,
    negligible,
    size_of,
)
from nip_audio.audio._mpeg import after_id3, lay_out_mpeg, starts_mpeg
from nip_audio.audio._streams import lay_out_flac, lay_out_ogg
from nip_audio.audio._tracks import Track, has_pyav
from nip_audio.audio.levels import ClippingMeter
from nip_audio.errors import AudioError, how_to_install

if TYPE_CHECKING:
    from nip_audio.audio.io import ReadSettings, Seconds

ROUNDED_S = 0.01
"""Rounding in a manifest: an end this far beyond the recording means the recording's end."""

_BLOCK_VALUES = 1 << 18
_RATES_HZ = (1000, 384_000)  # range of real recorders; a header may state anything
_MAX_VALUES_PER_S = 8 * 384_000
MOST_CHANNELS = 8
"""Number of channels that are kept beside their mean."""
_UNKNOWN_LENGTH = (1 << 63) - 1  # libsndfile's value for a file that was written to a stream


Sound: TypeAlias = soundfile.SoundFile | Track
"""What is read block by block."""


@dataclass(frozen=True)
class Decoded:
    """Samples of one channel, those of several that differ, and statistics of all channels.

    Attributes:
        mono: (N,) samples at the file's own rate.
        rate_hz: Sample rate of the file.
        channels: Number of channels of the file.
        separate: (M, C) samples of each of the first channels at the rate of the settings; None
            if all channels are equal, or are not averaged.
        encoding: Container and sample format of the file.
        changes: Changes that reading makes, in words.
        clipped: Share of the samples of each channel that were cut off, in [0, 1]; of the channel
            that was asked for alone.
        not_finite: Number of samples that are NaN or infinite.
    """

    mono: NDArray[np.float32]
    rate_hz: int
    channels: int
    separate: NDArray[np.float32] | None
    encoding: str
    changes: tuple[str, ...]
    clipped: tuple[float, ...]
    not_finite: int


def decode(
    path: str | Path,
    raw: io.BufferedReader,
    settings: ReadSettings,
    span: tuple[int, int] | Seconds | None,
) -> Decoded:
    """Decode a file, or a part of it, and check what was decoded.

    Args:
        path: Path or URL, for messages.
        raw: The file, open.
        settings: Settings for reading.
        span: Part to read; None means all.

    Raises:
        AudioError: With a code of ``read_audio``.
    """
    head = bytes_at(raw, 0, 300)
    container = container_of(head)
    if container is None:
        decoded = _decode_file(path, raw, settings, span)
    elif has_pyav():
        decoded = _decode_track(path, raw, container, settings, span)
    else:
        raise _refusal(path, head, "PyAV is not installed", with_pyav=True)
    _check(path, decoded, settings)
    return decoded


def _decode_file(
    path: str | Path,
    raw: io.BufferedReader,
    settings: ReadSettings,
    span: tuple[int, int] | Seconds | None,
) -> Decoded:
    """Decode with libsndfile."""
    layout = _lay_out(path, raw)
    view = View(raw, layout.parts, slowly=layout.samples is not None)
    try:
        with _Forwards(view) as file:
            view.forget()
            changes = (*layout.notes, *_plan(path, settings, file))
            stated = file.frames if layout.samples is None else layout.samples
            decoded = _decode(path, file, settings, _span(path, file, stated, span), changes)
            if span is None:
                _check_end(path, file, layout, view)
    except soundfile.SoundFileError as err:
        raise _refusal(path, bytes_at(raw, 0, 300), _reason(err)) from err
    return decoded


def _decode_track(
    path: str | Path,
    raw: io.BufferedReader,
    name: str,
    settings: ReadSettings,
    span: tuple[int, int] | Seconds | None,
) -> Decoded:
    """Decode a container with PyAV."""
    container = examine(path, raw, name)
    with Track(path, raw, container, longest=_UNKNOWN_LENGTH) as track:
        changes = (*container.notes, *_plan(path, settings, track))
        part = _span(path, track, track.frames, span)
        decoded = _decode(path, track, settings, part, changes, slack=track.slack)
        if span is None:
            track.check_end()
    return decoded


class _Forwards(soundfile.SoundFile):  # type: ignore[misc]
    """A file that is read forwards: soundfile seeks after each block if it is told that it can.

    FLAC without a length has no place after its last block to seek to.
    """

    def seekable(self) -> bool:
        """Return False."""
        return False


def _lay_out(path: str | Path, file: io.BufferedReader) -> Layout:
    """Find out how a file is given to the decoder, which is not asked what it is.

    Raises:
        AudioError: If its format is another one, or its header and its content contradict.
    """
    stop = size_of(file)
    start = after_id3(file, 0)
    head = bytes_at(file, start, 12)
    layout = None
    if head[:4] in CHUNKED:
        layout = lay_out_chunks(path, file, start, stop)
    elif head[:4] in (b".snd", b"dns."):
        layout = lay_out_au(path, file, start, stop)
    elif head[:7] == b"NIST_1A":
        layout = lay_out_nist(path, file, start, stop)
    elif head[:4] == b"fLaC":
        layout = lay_out_flac(path, file, start, stop)
    elif head[:4] == b"OggS":
        layout = lay_out_ogg(path, file, start, stop)
    elif starts_mpeg(head):
        layout = lay_out_mpeg(path, file, start, stop)
    if layout is None:
        raise _refusal(
            path,
            bytes_at(file, 0, 300),
            "format not recognised, or without a description of the sound",
        )
    return layout


def _refusal(path: str | Path, head: bytes, reason: str, *, with_pyav: bool = False) -> AudioError:
    """Return the error for a file that the decoder refuses, or that PyAV would decode."""
    found = f"its content is not audio that can be decoded ({reason})"
    remedy = "convert it to WAV, FLAC, OGG or MP3, or remove it"
    if (foreign := foreign_format(head)) is not None:
        name, remedy = foreign
        found = f"it is {name}, which is not decoded here"
    if with_pyav:
        found = f"it is {name}, which needs PyAV, which is not installed"
        remedy = f"{how_to_install('formats')}; or {remedy}"
    return AudioError(path, code="not_audio", found=found, remedy=remedy)


def _check_end(path: str | Path, file: soundfile.SoundFile, layout: Layout, view: View) -> None:
    """Refuse a file that holds more than was decoded."""
    unread = layout.stop - view.furthest
    if not negligible(unread, layout.stop):
        raise contradiction(path, f"{unread} of its bytes follow after the end of the sound")
    if layout.samples:
        try:
            more = len(file.read(_BLOCK_VALUES // file.channels, dtype="float32"))
        except soundfile.SoundFileError:  # what follows is no sound
            more = 0
        if more:
            raise contradiction(path, f"its header states {layout.samples} samples, it holds more")


def _plan(path: str | Path, settings: ReadSettings, file: Sound) -> tuple[str, ...]:
    """Return the changes that reading will make, or refuse the file."""
    rate, channels = file.samplerate, file.channels
    if not _RATES_HZ[0] <= rate <= _RATES_HZ[1]:
        raise AudioError(
            path,
            code="sample_rate",
            found=f"its header states a sample rate of {rate} Hz, expected {_RATES_HZ[0]}–"
            f"{_RATES_HZ[1]} Hz",
            remedy=f"convert it to {settings.sample_rate_hz} Hz",
        )
    if rate * channels > _MAX_VALUES_PER_S:
        raise AudioError(
            path,
            code="channels",
            found=f"its header states {channels} channels at {rate} Hz, expected at most "
            f"{_MAX_VALUES_PER_S} samples per second in all",
            remedy="convert it to one channel",
        )
    changes = []
    if channels > 1 and settings.downmix == "error" and settings.channel is None:
        raise AudioError(
            path,
            code="channels",
            found=f"it has {channels} channels, expected 1",
            remedy="use downmix mean or first",
        )
    if settings.channel is not None and settings.channel > channels:
        raise AudioError(
            path,
            code="channels",
            found=f"channel {settings.channel} was asked for, and it has {channels}",
            remedy=f"choose one from 1 to {channels}",
        )
    if rate != settings.sample_rate_hz:
        if not settings.resample:
            raise AudioError(
                path,
                code="sample_rate",
                found=f"its sample rate is {rate} Hz, this model expects "
                f"{settings.sample_rate_hz} Hz",
                remedy="allow resampling, or convert it",
            )
        changes.append(f"resampled from {rate} Hz")
    return tuple(changes)


def _blocks(file: Sound, count: int) -> Iterator[NDArray[np.float32]]:
    """Yield blocks (samples, channels) with at most ``count`` samples in total."""
    size = max(1, _BLOCK_VALUES // file.channels)
    while count > 0:
        block = file.read(min(size, count), dtype="float32", always_2d=True)
        if len(block) == 0:
            return
        count -= len(block)
        yield block


def _span(
    path: str | Path, file: Sound, stated: int, span: tuple[int, int] | Seconds | None
) -> tuple[int, int]:
    """Return the first sample to read and the one after the last."""
    samples = stated or (_UNKNOWN_LENGTH if file.frames else 0)
    if span is None:
        return 0, samples
    rate = file.samplerate
    start, stop = span if isinstance(span, tuple) else span.to_samples(rate, samples)
    if samples < stop <= samples + ROUNDED_S * rate:  # rounding in a manifest
        stop = samples
    if not 0 <= start < stop <= samples:
        raise AudioError(
            path,
            code="too_short",
            found=f"it has {samples} samples, the manifest asks for samples {start}–{stop}",
            remedy="correct start and end in the manifest",
        )
    return start, stop


def _decode(
    path: str | Path,
    file: Sound,
    settings: ReadSettings,
    span: tuple[int, int],
    changes: tuple[str, ...],
    *,
    slack: int = 1,
) -> Decoded:
    """Decode block by block; audio that is too long is refused before decoding."""
    rate = file.samplerate
    start, stop = span
    longest = int(settings.max_duration_s * rate)
    ends = stop < _UNKNOWN_LENGTH
    wanted = stop - start if ends else longest + 1
    if ends and wanted > longest:
        raise _too_long(path, f"{wanted / rate:.0f} s", settings)
    parts: list[NDArray[np.float32]] = []
    bad = 0
    averaged = settings.downmix == "mean" and settings.channel is None
    chosen = (settings.channel or 1) - 1
    meter = ClippingMeter(file.channels if averaged else 1, rate)
    separate = _Channels(file, settings.sample_rate_hz) if averaged and file.channels > 1 else None
    try:
        if start:
            file.seek(start)
        for block in _blocks(file, wanted):
            block = block if averaged else block[:, chosen : chosen + 1]
            meter.add(block)
            bad += int((~np.isfinite(block)).sum())
            if separate is not None:
                separate.add(block, parts)
            with np.errstate(invalid="ignore"):  # counted above, and refused
                parts.append(block.mean(axis=1))
    except soundfile.SoundFileError as err:
        raise AudioError(
            path,
            code="damaged",
            found=f"it is audio, but decoding fails in the middle ({_reason(err)})",
            remedy="copy or record it again",
        ) from err
    mono = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if not ends and len(mono) > longest:
        raise _too_long(path, "longer", settings)
    if ends and 0 < len(mono) < wanted * 0.99 - slack:
        raise AudioError(
            path,
            code="damaged",
            found=f"its header states {wanted} samples, only {len(mono)} could be decoded",
            remedy="copy or record it again",
        )
    kept = None if separate is None else separate.finish()
    if kept is not None and file.channels > MOST_CHANNELS:
        changes += (f"only the first {MOST_CHANNELS} channels kept beside their mean",)
    return Decoded(
        mono,
        rate,
        file.channels,
        kept,
        f"{file.format}/{file.subtype}",
        changes,
        clipped=meter.shares,
        not_finite=bad,
    )


def _too_long(path: str | Path, seconds: str, settings: ReadSettings) -> AudioError:
    return AudioError(
        path,
        code="too_long",
        found=f"it lasts {seconds}, at most {settings.max_duration_s:g} s are allowed",
        remedy="split it, or allow more (--max-duration, or max_duration_s)",
    )


class _Channels:
    """Keeps the first channels of a file at another rate, from the first difference on.

    Resampling goes block by block, so that memory depends on the rate that is asked for and not on
    that of the file. Files whose channels are equal throughout cost nothing.

    Args:
        file: File that is decoded.
        rate_hz: Sample rate to keep.
    """

    def __init__(self, file: Sound, rate_hz: int) -> None:
        """Start with nothing kept."""
        self._count = min(file.channels, MOST_CHANNELS)
        self._stream = None
        if file.samplerate != rate_hz:
            self._stream = soxr.ResampleStream(
                file.samplerate, rate_hz, self._count, dtype="float32", quality="VHQ"
            )
        self._kept: list[NDArray[np.float32]] | None = None

    def add(self, block: NDArray[np.float32], equal: list[NDArray[np.float32]]) -> None:
        """Add a block (samples, channels).

        Args:
            block: Samples that follow those before.
            equal: Samples (N,) of all blocks before, in which the channels may have been equal.
        """
        if self._kept is None:
            if np.array_equal(block, np.broadcast_to(block[:, :1], block.shape), equal_nan=True):
                return
            self._kept = []
            for part in equal:
                self._keep(np.repeat(part[:, None], self._count, axis=1))
        self._keep(np.ascontiguousarray(block[:, : self._count]))

    def finish(self) -> NDArray[np.float32] | None:
        """Return (M, C) samples; None if the channels were equal."""
        if self._kept is None:
            return None
        self._keep(np.zeros((0, self._count), np.float32), last=True)
        return np.concatenate(self._kept)

    def _keep(self, block: NDArray[np.float32], *, last: bool = False) -> None:
        if self._kept is not None:
            stream = self._stream
            self._kept.append(block if stream is None else stream.resample_chunk(block, last=last))


def _check(path: str | Path, decoded: Decoded, settings: ReadSettings) -> None:
    samples, rate = len(decoded.mono), decoded.rate_hz
    if samples == 0:
        raise AudioError(path, code="empty", found="it holds 0 samples", remedy="record it again")
    if decoded.not_finite:
        raise AudioError(
            path,
            code="not_finite",
            found=f"{decoded.not_finite} of its samples are NaN or infinite",
            remedy="export it again as 16-bit WAV",
        )
    if samples < settings.min_duration_s * rate:
        raise AudioError(
            path,
            code="too_short",
            found=f"it lasts {1000 * samples / rate:.0f} ms, at least "
            f"{1000 * settings.min_duration_s:.0f} ms are needed",
            remedy="record a longer passage",
        )
    worst = int(np.argmax(decoded.clipped))
    if decoded.clipped[worst] > settings.max_clipped_share:
        several = len(decoded.clipped) > 1
        raise AudioError(
            path,
            code="clipped",
            found=f"{decoded.clipped[worst]:.0%} of "
            f"{f'the samples of channel {worst + 1}' if several else 'its samples'} are cut off "
            f"at the highest level, at most {settings.max_clipped_share:.0%} are allowed",
            remedy="choose another one (--channel, or channel), or record again at a lower level"
            if several
            else "record again at a lower level",
        )


def _reason(err: Exception) -> str:
    """Return libsndfile's message without the object's address."""
    return str(err).split(": ", 1)[-1].strip().rstrip(".")
