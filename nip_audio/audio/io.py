"""Audio files in and out: soundfile decodes, soxr resamples, every change is on record."""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from nip_audio.core.state import write_atomic
from nip_audio.errors import AudioError, InputError

__all__ = [
    "AUDIO_SUFFIXES",
    "Audio",
    "ReadSettings",
    "read_audio",
    "samples_sha256",
    "to_16_bits",
    "write_audio",
]

_DECODED = ("wav", "flac", "ogg", "oga", "opus", "mp3", "aif", "aiff", "aifc", "au", "caf", "w64")
_NOT_DECODED = ("m4a", "mp4", "aac", "wma", "amr", "webm")  # but not to be passed over in silence

AUDIO_SUFFIXES = frozenset(f".{ending}" for ending in (*_DECODED, *_NOT_DECODED))
"""File name endings a folder walk takes for audio; reading itself goes by content."""

_BLOCK_SAMPLES = 1 << 18
_UNKNOWN_LENGTH = (1 << 63) - 1  # what libsndfile gives for a streamed file


@dataclass(frozen=True)
class ReadSettings:
    """How audio is read. Nothing is changed silently: what was done stands in the ``Audio``.

    Attributes:
        sample_rate_hz: Rate wanted.
        resample: Resample other rates; if false they are an error.
        downmix: ``mean`` averages channels, ``first`` takes the first, ``error`` refuses several.
        min_duration_s: Shorter audio is an error.
        max_duration_s: Longer audio is an error; decoding stops there, so memory stays bounded.
        min_rms: Quieter audio is silence, which is an error.
        max_clipped_share: A larger share of samples at full scale is an error.
    """

    sample_rate_hz: int = 16000
    resample: bool = True
    downmix: Literal["mean", "first", "error"] = "mean"
    min_duration_s: float = 0.5
    max_duration_s: float = 120.0
    min_rms: float = 1e-4
    max_clipped_share: float = 0.05

    def __post_init__(self) -> None:
        """Check."""
        if self.sample_rate_hz < 1 or not 0 < self.min_duration_s < self.max_duration_s:
            raise InputError(
                f"sample rate {self.sample_rate_hz} Hz, durations {self.min_duration_s}–"
                f"{self.max_duration_s} s; expected a rate ≥ 1 and 0 < shortest < longest"
            )
        if self.downmix not in ("mean", "first", "error"):
            raise InputError(f"downmix is {self.downmix!r}, expected mean, first or error")


@dataclass(frozen=True)
class Audio:
    """One decoded recording.

    Attributes:
        samples: (N,) float32 in [-1, 1] at ``sample_rate_hz``.
        sample_rate_hz: Rate of ``samples``.
        source_rate_hz: Rate of the file.
        source_channels: Channels of the file.
        encoding: Container and sample format of the file, e.g. ``WAV/PCM_16``.
        sha256: Of the file's bytes.
        clipped_share: Share of samples at full scale.
        changes: What was done to get here, in words.
    """

    samples: Tensor
    sample_rate_hz: int
    source_rate_hz: int
    source_channels: int
    encoding: str
    sha256: str
    clipped_share: float
    changes: tuple[str, ...]

    @property
    def duration_s(self) -> float:
        """Seconds."""
        return self.samples.shape[0] / self.sample_rate_hz

    @property
    def content_sha256(self) -> str:
        """Hash of the decoded samples: a copy of another name or container has the same."""
        return samples_sha256(self.samples)


def samples_sha256(samples: Tensor) -> str:
    """Hash samples: equal ones, and no others, have the same."""
    return hashlib.sha256(samples.contiguous().numpy().tobytes()).hexdigest()


def read_audio(
    path: str | Path, settings: ReadSettings | None = None, *, span: tuple[int, int] | None = None
) -> Audio:
    """Read a file of any format, rate and channel count that soundfile decodes.

    Args:
        path: The file. Its format is told from its content, not from its name.
        settings: How.
        span: First sample and the one behind the last, at the file's own rate; None reads all.

    Returns:
        The recording.

    Raises:
        AudioError: With a stable ``code``: ``missing``, ``unreadable``, ``not_a_file``, ``empty``,
            ``not_audio``, ``damaged``, ``sample_rate``, ``channels``, ``too_short``, ``too_long``,
            ``not_finite``, ``silent`` or ``clipped``.
    """
    path = Path(path)
    settings = ReadSettings() if settings is None else settings
    sha256 = _checked_hash(path)
    try:
        # by a handle without a name: the format is then told from the content alone
        with (
            os.fdopen(os.open(path, os.O_RDONLY), "rb") as raw,
            soundfile.SoundFile(raw) as file,
        ):
            rate, channels = file.samplerate, file.channels
            encoding = f"{file.format}/{file.subtype}"
            changes = _plan(path, settings, file)
            samples = _decode(path, file, settings, span)
    except soundfile.SoundFileError as err:
        raise AudioError(
            path,
            code="not_audio",
            found=f"its content is not audio that can be decoded ({_reason(err)})",
            remedy="give a wav, flac, ogg or mp3 file that plays, or remove it",
        ) from err
    _check(path, samples, rate, settings)
    clipped = float((np.abs(samples) >= 0.9999).mean())
    if clipped > settings.max_clipped_share:
        raise AudioError(
            path,
            code="clipped",
            found=f"{clipped:.0%} of its samples are at full scale",
            remedy="record again at a lower level",
        )
    mono = samples.mean(axis=1) if settings.downmix == "mean" else samples[:, 0]
    if rate != settings.sample_rate_hz:
        mono = soxr.resample(mono, rate, settings.sample_rate_hz, quality="VHQ")
    rms = float(np.sqrt(np.mean((mono - mono.mean()) ** 2)))
    if rms < settings.min_rms:
        raise AudioError(
            path,
            code="silent",
            found=f"it is silent or constant (rms {rms:.1e} around its mean of {mono.mean():.2g}, "
            f"at least {settings.min_rms:g} is needed)",
            remedy="check the microphone and record again",
        )
    beyond = int((np.abs(mono) > 1.0).sum())
    if beyond:
        changes += (f"{beyond} samples beyond full scale cut to it",)
    tensor = torch.from_numpy(np.clip(mono, -1.0, 1.0).astype(np.float32))
    return Audio(
        tensor, settings.sample_rate_hz, rate, channels, encoding, sha256, clipped, changes
    )


def write_audio(path: Path, samples: Tensor, sample_rate_hz: int, *, force: bool = False) -> None:
    """Write mono 16-bit audio atomically; the name's ending chooses wav or flac.

    Samples are rounded to the nearest of the 65,536 levels, without dither: what is read back is
    within half a level, 1.5e-5, of what was given (+1 itself becomes 32767/32768, the highest
    level), and the same for the same input.

    Args:
        path: Ends in ``.wav`` or ``.flac``.
        samples: (N,) floating in [-1, 1].
        sample_rate_hz: Rate.
        force: Overwrite.

    Raises:
        InputError: If the samples are not such, or the ending is another.
        OutputError: If the file exists already or its folder does not.
    """
    container = {".wav": "WAV", ".flac": "FLAC"}.get(path.suffix.lower())
    samples = samples.detach().cpu()
    if container is None:
        raise InputError(f"{path.name} ends in {path.suffix!r}, expected .wav or .flac")
    usable = samples.dim() == 1 and samples.numel() > 0 and samples.is_floating_point()
    if not usable or not bool(samples.isfinite().all()):
        raise InputError(f"samples are {tuple(samples.shape)}, expected finite floating (≥ 1,)")
    if float(samples.abs().max()) > 1.0:
        raise InputError(f"samples reach {float(samples.abs().max()):.3f}, expected [-1, 1]")
    levels = (to_16_bits(samples) * 32768).to(torch.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, levels.numpy(), sample_rate_hz, "PCM_16", format=container)
    write_atomic(path, buffer.getvalue(), force=force)


def to_16_bits(samples: Tensor) -> Tensor:
    """Return what will be read back once samples in [-1, 1] were written: the same shape, float32.

    Example:
        >>> (to_16_bits(torch.tensor([1.0, -1.0, 0.3])) * 32768).tolist()
        [32767.0, -32768.0, 9830.0]
    """
    return ((samples.double() * 32768).round().clamp(-32768, 32767) / 32768).float()


def _checked_hash(path: Path) -> str:
    """Return the SHA-256 of a readable, non-empty regular file."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "a device, pipe or socket"
            raise AudioError(
                path,
                code="not_a_file",
                found=f"it is {kind}, not a file",
                remedy="give the files in it, or remove it",
            )
        digest = hashlib.sha256()
        size = 0
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
                size += len(piece)
    except FileNotFoundError as err:
        found = "it is a link to nothing" if path.is_symlink() else "it does not exist"
        raise AudioError(path, code="missing", found=found, remedy="check the path") from err
    except OSError as err:
        raise AudioError(
            path,
            code="unreadable",
            found=f"it cannot be read ({err.strerror or err})",
            remedy="check its permissions and the link it may be",
        ) from err
    if size == 0:
        raise AudioError(path, code="empty", found="the file has 0 bytes", remedy="record it again")
    return digest.hexdigest()


def _plan(path: Path, settings: ReadSettings, file: soundfile.SoundFile) -> tuple[str, ...]:
    """Say what will be done to the audio, or refuse."""
    rate, channels = file.samplerate, file.channels
    changes = []
    if re.search(r"^data : \d+ \(should be", file.extra_info, re.MULTILINE):
        changes.append("the header promises more audio than the file holds")
    if channels > 1:
        if settings.downmix == "error":
            raise AudioError(
                path,
                code="channels",
                found=f"it has {channels} channels, expected 1",
                remedy="choose downmix mean or first",
            )
        how = "averaged" if settings.downmix == "mean" else "cut to the first"
        changes.append(f"{channels} channels {how}")
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


def _blocks(file: soundfile.SoundFile, count: int) -> Iterator[NDArray[np.float32]]:
    """Yield (samples, channels) blocks, at most ``count`` samples in all."""
    while count > 0:
        block = file.read(min(_BLOCK_SAMPLES, count), dtype="float32", always_2d=True)
        if len(block) == 0:
            return
        count -= len(block)
        yield block


def _decode(
    path: Path, file: soundfile.SoundFile, settings: ReadSettings, span: tuple[int, int] | None
) -> NDArray[np.float32]:
    """Decode in blocks, unless it is longer than allowed: (samples, channels)."""
    rate = file.samplerate
    limit = int(settings.max_duration_s * rate)
    declared = file.frames
    if declared == _UNKNOWN_LENGTH:  # libsndfile cannot find the end of such a FLAC
        raise AudioError(
            path,
            code="damaged",
            found="its header does not say how long it is",
            remedy="convert it to a file, it was written to a stream",
        )
    if span is not None:
        start, stop = span
        if not 0 <= start < stop <= declared:
            raise AudioError(
                path,
                code="too_short",
                found=f"it has {declared} samples, the span asks for {start}–{stop}",
                remedy="correct the manifest",
            )
        file.seek(start)
        wanted, limit = stop - start, min(limit, stop - start)
    else:
        wanted = declared
    if wanted > limit:
        raise AudioError(
            path,
            code="too_long",
            found=f"it lasts {wanted / rate:.0f} s, more than the "
            f"{settings.max_duration_s:g} s allowed",
            remedy="split it, or allow more with --max-duration",
        )
    try:
        parts = list(_blocks(file, wanted))
    except soundfile.SoundFileError as err:
        raise AudioError(
            path,
            code="damaged",
            found=f"it is audio, but decoding breaks off ({_reason(err)})",
            remedy="copy or record it again",
        ) from err
    samples = np.concatenate(parts) if parts else np.zeros((0, file.channels), np.float32)
    if 0 < len(samples) < wanted * 0.99 - 1:
        raise AudioError(
            path,
            code="damaged",
            found=f"its header promises {wanted} samples, only {len(samples)} could be decoded",
            remedy="copy or record it again",
        )
    return samples


def _check(path: Path, samples: NDArray[np.float32], rate: int, settings: ReadSettings) -> None:
    if len(samples) == 0:
        raise AudioError(path, code="empty", found="it holds 0 samples", remedy="record it again")
    if not np.isfinite(samples).all():
        bad = int((~np.isfinite(samples)).sum())
        raise AudioError(
            path,
            code="not_finite",
            found=f"{bad} of its samples are NaN or infinite",
            remedy="export it again as 16-bit wav",
        )
    if len(samples) < settings.min_duration_s * rate:
        raise AudioError(
            path,
            code="too_short",
            found=f"it lasts {1000 * len(samples) / rate:.0f} ms, at least "
            f"{1000 * settings.min_duration_s:.0f} ms are needed",
            remedy="record a longer passage",
        )


def _reason(err: Exception) -> str:
    """Return libsndfile's own words, without the object's address."""
    return str(err).split(": ", 1)[-1].strip().rstrip(".")
