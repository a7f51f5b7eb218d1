"""Lossy codecs as purifiers: they drop inaudible detail, which may include a perturbation."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.errors import InputError
from nip_audio.purifiers._checks import (
    check_full_scale,
    check_number,
    check_waveforms,
    check_whole,
)
from nip_audio.purifiers._items import each_item
from nip_audio.purifiers.base import Level, Purifier

__all__ = ["CODECS", "Codec", "CodecName", "through_codec"]

CodecName = Literal["mp3", "vorbis", "opus", "gsm", "mu-law"]


@dataclass(frozen=True)
class _Format:
    """libsndfile's names for a codec, and the sample rates it accepts; None means any."""

    container: str
    subtype: str
    rates_hz: tuple[int, ...] | None


CODECS: Mapping[CodecName, _Format] = {
    "mp3": _Format(
        "MP3",
        "MPEG_LAYER_III",
        (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
    ),
    "vorbis": _Format("OGG", "VORBIS", None),
    "opus": _Format("OGG", "OPUS", (8000, 12000, 16000, 24000, 48000)),
    "gsm": _Format("WAV", "GSM610", None),
    "mu-law": _Format("WAV", "ULAW", None),
}

_TITLES: Mapping[CodecName, str] = {"mp3": "MP3", "vorbis": "Vorbis", "opus": "Opus"}
"""Codecs that purify, which have a compression level, and their names in tables."""


def through_codec(
    samples: NDArray[np.float32],
    codec: CodecName,
    *,
    sample_rate_hz: int,
    compression_level: float | None = None,
) -> NDArray[np.float32]:
    """Encode and decode a waveform in memory.

    libsndfile compensates the delay of encoder and decoder and keeps the length.

    Args:
        samples: (N,) samples in [-1, 1].
        codec: Name of the codec, one of ``CODECS``.
        sample_rate_hz: Sample rate of the waveform.
        compression_level: 0 (best quality) to 1 (smallest file); None is libsndfile's default.

    Returns:
        (N,) samples, possibly slightly outside [-1, 1].
    """
    kind = CODECS[codec]
    file = io.BytesIO()
    with soundfile.SoundFile(
        file,
        "w",
        sample_rate_hz,
        1,
        kind.subtype,
        format=kind.container,
        compression_level=compression_level,
    ) as sound:
        # libsndfile keeps one write to Vorbis on the stack: two minutes at once overflow it
        for start in range(0, len(samples), sample_rate_hz):
            sound.write(samples[start : start + sample_rate_hz])
    file.seek(0)
    decoded, _ = soundfile.read(file, dtype="float32")
    out = np.zeros_like(samples)
    size = min(len(out), len(decoded))
    out[:size] = decoded[:size]
    return out


class Codec(Purifier):
    """Encode and decode with a lossy codec (MP3 compression: Das et al. 2018).

    Args:
        codec: Name of the codec: ``mp3`` (LAME, variable bit rate), ``vorbis`` or ``opus``.
        compression_level: 0 (best quality) to 0.99 (smallest file).
        sample_rate_hz: Sample rate of the waveforms.
        bounds: Range the result is clipped to; must be full scale, (-1, 1).

    Raises:
        InputError: If a setting is out of range, or the codec does not accept the sample rate.
    """

    level: ClassVar[Level] = "raw"
    differentiable: ClassVar[bool] = False
    random: ClassVar[bool] = False

    def __init__(
        self,
        *,
        codec: CodecName = "mp3",
        compression_level: float = 0.5,
        sample_rate_hz: int = 16000,
        bounds: Bounds,
    ) -> None:
        if codec not in _TITLES:
            raise InputError(f"codec is {codec!r}, expected one of {', '.join(_TITLES)}")
        # at 1 the library's MP3 encoder fails
        check_number("compression_level", compression_level, 0, 0.99, usual=0.5)
        check_whole("sample_rate_hz", sample_rate_hz, 1000, 192000, usual=16000)
        rates = CODECS[codec].rates_hz
        if rates is not None and sample_rate_hz not in rates:
            raise InputError(
                f"sample rate is {sample_rate_hz} Hz, {codec} expects one of "
                f"{', '.join(map(str, rates))}; use vorbis, which accepts any rate"
            )
        check_full_scale(bounds)
        self.codec: CodecName = codec
        self.compression_level = compression_level
        self.sample_rate_hz = sample_rate_hz
        self.bounds = Bounds.of(bounds)

    @property
    def name(self) -> str:
        """Name with the compression level."""
        return f"{_TITLES[self.codec]} {self.compression_level:g}"

    def settings(self) -> dict[str, Any]:
        """Return the codec, the compression level and the sample rate."""
        return {
            "name": self.codec,
            "compression_level": self.compression_level,
            "sample_rate_hz": self.sample_rate_hz,
        }

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Encode and decode, item by item.

        Raises:
            InputError: If the input is not of shape (B, N).
        """
        check_waveforms(batch)
        return each_item(batch, self._coded)

    def _coded(self, x: Tensor) -> Tensor:
        coded = [
            through_codec(
                samples,
                self.codec,
                sample_rate_hz=self.sample_rate_hz,
                compression_level=self.compression_level,
            )
            for samples in x.detach().float().cpu().numpy()
        ]
        return self.bounds.clip(torch.from_numpy(np.stack(coded)).to(x))
