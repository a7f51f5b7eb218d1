"""Read and write audio files: soundfile or PyAV decodes, soxr resamples, changes are recorded."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from nip_audio.audio._decoding import MOST_CHANNELS, ROUNDED_S, Decoded, decode
from nip_audio.audio.channels import Channel, Mixture, mix
from nip_audio.audio.levels import to_full_scale
from nip_audio.audio.opening import content_sha256, opened
from nip_audio.audio.remote import is_url
from nip_audio.audio.windows import LEAST_SOUND_S
from nip_audio.core.state import write_atomic
from nip_audio.errors import AudioError, InputError

__all__ = [
    "AUDIO_SUFFIXES",
    "Audio",
    "Channel",
    "ReadSettings",
    "Seconds",
    "read_audio",
    "samples_sha256",
    "to_16_bits",
    "write_audio",
]

_DECODED = ("wav", "flac", "ogg", "oga", "opus", "mp3", "aif", "aiff", "aifc", "au", "caf", "w64")
_WITH_PYAV = ("m4a", "m4b", "mp4", "mov", "3gp", "3g2", "amr", "awb", "webm", "mka", "mkv")
_OTHERS = (  # found by a folder walk, so that they are reported
    *("aac", "wma", "avi", "mpg", "mpeg", "mp2", "mpga", "ac3", "ape", "tta", "wv", "spx", "gsm"),
    *("voc", "snd", "sph", "nist", "dss", "ds2", "qcp", "ra"),
)

AUDIO_SUFFIXES = frozenset(f".{ending}" for ending in (*_DECODED, *_WITH_PYAV, *_OTHERS))
"""File name endings that a folder walk takes for audio; reading detects the format by content."""


@dataclass(frozen=True)
class ReadSettings:
    """Settings for reading audio; every change to the audio is listed in ``Audio.changes``.

    Attributes:
        sample_rate_hz: Sample rate to return.
        resample: Resample files of other rates; if false, another rate is an error.
        downmix: ``mean`` averages the channels (see ``channels.mix`` for those that are silent or
            cancel each other), ``first`` takes the first, ``error`` refuses files with several.
        channel: Number of the channel to take, from 1, instead; None takes what ``downmix`` says.
        min_duration_s: Shortest duration; shorter audio is an error.
        min_sound_s: Shortest sound without silence, and no more than ``min_duration_s``; less is an
            error.
        max_duration_s: Longest duration; longer audio is an error and is not decoded, so that
            memory stays bounded.
        min_rms: Smallest root mean square (RMS) of the samples; quieter audio is an error.
        max_clipped_share: Largest share of the samples of a channel that were cut off at the
            highest level; a larger one is an error.
        max_bytes: Largest file size; a larger file is an error and is not read.

    Raises:
        InputError: If a setting is invalid.
    """

    sample_rate_hz: int = 16000
    resample: bool = True
    downmix: Literal["mean", "first", "error"] = "mean"
    channel: int | None = None
    min_duration_s: float = 0.5
    min_sound_s: float = LEAST_SOUND_S
    max_duration_s: float = 120.0
    min_rms: float = 1e-4
    max_clipped_share: float = 0.05
    max_bytes: int = 1 << 32

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.sample_rate_hz < 1 or not 0 < self.min_duration_s < self.max_duration_s:
            raise InputError(
                f"sample rate is {self.sample_rate_hz} Hz, durations are {self.min_duration_s}–"
                f"{self.max_duration_s} s; expected a rate ≥ 1 and 0 < shortest < longest"
            )
        if self.downmix not in ("mean", "first", "error"):
            raise InputError(f"downmix is {self.downmix!r}, expected mean, first or error")
        if self.channel is not None and self.channel < 1:
            raise InputError(f"channel is {self.channel}, expected a number from 1 on")


@dataclass(frozen=True)
class Seconds:
    """A part of a recording in seconds, independent of its sample rate.

    Attributes:
        start: Start of the part.
        stop: End of the part; None means the recording's end. An end up to 10 ms beyond the
            recording, which rounding can cause, is set to the recording's end.

    Raises:
        InputError: If the part is empty, or begins before the recording.
    """

    start: float
    stop: float | None = None

    def __post_init__(self) -> None:
        """Check the limits."""
        if not 0 <= self.start < (float("inf") if self.stop is None else self.stop):
            raise InputError(
                f"the part from {self.start} s to {self.stop} s is empty or begins before the "
                "recording; pass 0 ≤ start < end"
            )

    def to_samples(self, rate_hz: int, samples: int) -> tuple[int, int]:
        """Return the first sample and the one after the last.

        Args:
            rate_hz: Sample rate of the recording.
            samples: Number of samples in the recording.

        Example:
            >>> Seconds(0.5, 1.005).to_samples(8000, 8000)
            (4000, 8000)
        """
        if self.stop is None:
            return round(self.start * rate_hz), samples
        stop = round(self.stop * rate_hz)
        rounded = samples < stop <= samples + ROUNDED_S * rate_hz
        return round(self.start * rate_hz), samples if rounded else stop


@dataclass(frozen=True)
class Audio:
    """One decoded recording.

    Attributes:
        samples: (N,) float32 in [-1, 1] at ``sample_rate_hz``.
        sample_rate_hz: Sample rate of ``samples``.
        source_rate_hz: Sample rate of the file.
        source_channels: Number of channels in the file.
        encoding: Container and sample format of the file, e.g. ``WAV/PCM_16``.
        sha256: SHA-256 of the file's bytes.
        clipped_share: Share of the samples that were cut off at the highest level, in [0, 1]; the
            largest of all channels.
        changes: Changes made to the audio, in words.
        channels: Channels of a file whose channels were averaged and differ, the first eight at
            most and without silent ones; empty for all other files. A system that reads one
            channel hears something else than ``samples``.
        channels_left_out: Number of channels that differ and are not among ``channels``, because
            the file has more than eight.
    """

    samples: Tensor
    sample_rate_hz: int
    source_rate_hz: int
    source_channels: int
    encoding: str
    sha256: str
    clipped_share: float
    changes: tuple[str, ...]
    channels: tuple[Channel, ...] = ()
    channels_left_out: int = 0

    @cached_property
    def mixture(self) -> Channel:
        """The samples as a channel, with number 0."""
        return Channel(0, self.samples, self.sample_rate_hz)

    @property
    def sound_s(self) -> float:
        """Seconds of sound, without silence."""
        return float(self.mixture.sound.sum()) / self.sample_rate_hz

    @property
    def duration_s(self) -> float:
        """Duration in seconds."""
        return self.samples.shape[0] / self.sample_rate_hz

    @property
    def raw(self) -> Tensor:
        """Raw model input: the samples."""
        return self.samples

    @property
    def noise_key(self) -> str:
        """Key that seeds the noise of a measurement: the SHA-256 of the file."""
        return self.sha256

    @property
    def content_sha256(self) -> str:
        """SHA-256 of the samples, which a copy in another lossless container shares."""
        return samples_sha256(self.samples)


def samples_sha256(samples: Tensor) -> str:
    """Return the SHA-256 of the samples' bytes, which identifies their content."""
    return hashlib.sha256(samples.contiguous().numpy().tobytes()).hexdigest()


def read_audio(
    path: str | Path,
    settings: ReadSettings | None = None,
    *,
    span: tuple[int, int] | Seconds | None = None,
) -> Audio:
    """Read a WAV, FLAC, Ogg, MP3, AIFF, AU, CAF or NIST file of any rate and channel count.

    With the extra ``formats`` also M4A, MP4, 3GP, QuickTime, WebM, Matroska and AMR.

    A file that holds more than its header states, or several streams, is an error, since programs
    play it differently; one whose header states no length is read to its end.

    Time and memory are bounded by ``settings``, whatever the file's header says: decoding stops at
    the longest duration, and channels are averaged block by block. Of channels that differ, the
    first eight are kept as well. Samples beyond full scale are scaled, and an offset is removed
    (``levels.to_full_scale``).

    Args:
        path: File, member of a ZIP or tar archive (``voices.zip/ann/a.wav``), or URL as text,
            which is fetched first. The format is detected by content, not by name.
        settings: Settings for reading; None uses the defaults.
        span: Part to read: first sample and the one after the last at the file's own rate, or
            ``Seconds``; None reads the whole file.

    Returns:
        The decoded recording.

    Raises:
        AudioError: With a stable ``code``: ``missing``, ``unreadable``, ``not_a_file``,
            ``too_large``, ``empty``, ``not_audio``, ``damaged``, ``sample_rate``, ``channels``,
            ``too_short``, ``too_little_sound``, ``too_long``, ``not_finite``, ``scale``,
            ``silent`` or ``clipped``; of a member of an archive also ``same_name``.
        MissingDependencyError: If ``path`` is a URL and the package that fetches it is not
            installed.
    """
    settings = ReadSettings() if settings is None else settings
    place = path if is_url(path) else Path(path)
    with opened(place, max_bytes=settings.max_bytes) as file:
        sha256 = content_sha256(file)
        decoded = decode(place, file, settings, span)
    return _audio(place, decoded, sha256, settings)


def _audio(path: str | Path, decoded: Decoded, sha256: str, settings: ReadSettings) -> Audio:
    mixture, changes = _mixed(path, decoded, settings)
    left_out = decoded.channels - MOST_CHANNELS if decoded.separate is not None else 0
    audio = Audio(
        torch.from_numpy(np.ascontiguousarray(mixture.samples)),
        settings.sample_rate_hz,
        decoded.rate_hz,
        decoded.channels,
        decoded.encoding,
        sha256,
        max(decoded.clipped),
        ((mixture.how,) if mixture.how else ()) + decoded.changes + changes,
        mixture.channels,
        max(0, left_out),
    )
    if silent := len(audio.samples) - len(audio.mixture.voice):
        note = f"{silent / audio.sample_rate_hz:.1f} s of silence left out of the voice"
        audio = replace(audio, changes=(*audio.changes, note))
    least_s = min(settings.min_sound_s, settings.min_duration_s)
    if audio.sound_s < least_s:
        raise AudioError(
            path,
            code="too_little_sound",
            found=f"it holds {audio.sound_s:.1f} s of sound in {audio.duration_s:.1f} s, and at "
            f"least {least_s:g} s are needed",
            remedy="record a longer passage",
        )
    return audio


def _mixed(
    path: str | Path, decoded: Decoded, settings: ReadSettings
) -> tuple[Mixture, tuple[str, ...]]:
    """Return the signal of a file at the rate of the settings, and what was changed about it."""
    mono, rate_hz = decoded.mono, settings.sample_rate_hz
    if decoded.rate_hz != rate_hz:
        mono = soxr.resample(mono, decoded.rate_hz, rate_hz, quality="VHQ")
    apart = [] if decoded.separate is None else list(np.ascontiguousarray(decoded.separate.T))
    try:
        (mono, *apart), changes = to_full_scale([mono, *apart])
    except ValueError as err:
        raise AudioError(
            path, code="scale", found=str(err), remedy="export it again as 16-bit WAV"
        ) from err
    mixture = Mixture(mono, (), _how(decoded, settings))
    if apart:
        total, least = decoded.channels, settings.min_rms
        mixture = mix(mono, apart, total=total, sample_rate_hz=rate_hz, min_rms=least)
    rms = float(mixture.samples.std(dtype=np.float64))
    if rms < settings.min_rms:
        raise AudioError(
            path,
            code="silent",
            found=f"it is silent or constant (RMS {rms:.1e} around its mean, at least "
            f"{settings.min_rms:g} is needed)",
            remedy="check the microphone and record again",
        )
    return mixture, changes


def _how(decoded: Decoded, settings: ReadSettings) -> str:
    """Say which of several channels were read, where they are equal or were not averaged."""
    count = decoded.channels
    if settings.channel is not None and count > 1:
        return f"channel {settings.channel} of {count} taken"
    if count > 1:
        how = "averaged" if settings.downmix == "mean" else "reduced to the first"
        return f"{count} channels {how}"
    return ""


def write_audio(
    path: str | Path, samples: Tensor, sample_rate_hz: int, *, force: bool = False
) -> None:
    """Write mono 16-bit audio to a WAV or FLAC file, whole or not at all.

    Samples are rounded to the nearest of the 65,536 levels, without dither. A sample read back
    differs from the given one by at most half a level, 1.5e-5 (+1 becomes 32767/32768, the highest
    level). Equal input gives equal files.

    Args:
        path: File to write; its name ends in ``.wav`` or ``.flac``.
        samples: (N,) floating waveform in [-1, 1].
        sample_rate_hz: Sample rate of the waveform.
        force: Overwrite an existing file.

    Raises:
        InputError: If the samples have another shape, type or range, or the name another ending.
        OutputError: If the file exists and ``force`` is false, or its folder does not exist.
    """
    path = Path(path)
    container = {".wav": "WAV", ".flac": "FLAC"}.get(path.suffix.lower())
    samples = samples.detach().cpu()
    if container is None:
        raise InputError(f"{path.name} ends in {path.suffix!r}, expected .wav or .flac")
    usable = samples.dim() == 1 and samples.numel() > 0 and samples.is_floating_point()
    if not usable or not bool(samples.isfinite().all()):
        raise InputError(
            f"samples are {tuple(samples.shape)} of {samples.dtype}, expected finite floating "
            "values "
            "of shape (samples ≥ 1,)"
        )
    if float(samples.abs().max()) > 1.0:
        raise InputError(
            f"samples reach {float(samples.abs().max()):.3f}, expected [-1, 1]; scale or clip them"
        )
    levels = (to_16_bits(samples) * 32768).to(torch.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, levels.numpy(), sample_rate_hz, "PCM_16", format=container)
    write_atomic(path, buffer.getvalue(), force=force)


def to_16_bits(samples: Tensor) -> Tensor:
    """Round samples in [-1, 1] to the values that a 16-bit file holds; float32, the same shape.

    Example:
        >>> (to_16_bits(torch.tensor([1.0, -1.0, 0.3])) * 32768).tolist()
        [32767.0, -32768.0, 9830.0]
    """
    return ((samples.double() * 32768).round().clamp(-32768, 32767) / 32768).float()
