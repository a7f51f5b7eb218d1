"""Lossy codecs: what they leave out as inaudible may be what an attacker put in."""

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

CodecName = Literal["mp3", "vorbis", "opus"]


@dataclass(frozen=True)
class _Format:
    """How libsndfile calls a codec, and which rates it takes; None: any."""

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
}


def through_codec(
    samples: NDArray[np.float32],
    codec: CodecName,
    *,
    sample_rate_hz: int,
    compression_level: float | None = None,
) -> NDArray[np.float32]:
    """Encode and decode in memory.

    libsndfile takes the delay of encoder and decoder out by itself, and keeps the length.

    Args:
        samples: (N,) in [-1, 1].
        codec: One of ``CODECS``.
        sample_rate_hz: Their rate.
        compression_level: 0 (best quality) to 1 (smallest); None is libsndfile's own.

    Returns:
        (N,), possibly a little beyond [-1, 1].
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
        # libsndfile puts what Vorbis encodes at once on the stack: two minutes overflow it
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
        codec: ``mp3`` (LAME, variable bit rate), ``vorbis`` or ``opus``.
        compression_level: 0 (best quality) to 0.99 (smallest).
        sample_rate_hz: Rate of the waveforms.
        bounds: Range the result is clipped to: a waveform's full scale.
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
        """See the class."""
        if codec not in CODECS:
            raise InputError(f"codec is {codec!r}, expected {', '.join(CODECS)}")
        # at 1 the library's MP3 encoder fails
        check_number("compression_level", compression_level, 0, 0.99, usual=0.5)
        check_whole("sample_rate_hz", sample_rate_hz, 1000, 192000, usual=16000)
        rates = CODECS[codec].rates_hz
        if rates is not None and sample_rate_hz not in rates:
            raise InputError(
                f"sample rate is {sample_rate_hz} Hz, {codec} expects one of "
                f"{', '.join(map(str, rates))}; use vorbis, which takes any"
            )
        check_full_scale(bounds)
        self.codec: CodecName = codec
        self.compression_level = compression_level
        self.sample_rate_hz = sample_rate_hz
        self.bounds = bounds

    @property
    def name(self) -> str:
        """Name with the compression."""
        title = {"mp3": "MP3", "vorbis": "Vorbis", "opus": "Opus"}[self.codec]
        return f"{title} {self.compression_level:g}"

    def settings(self) -> dict[str, Any]:
        """Return codec, compression and rate."""
        return {
            "name": self.codec,
            "compression_level": self.compression_level,
            "sample_rate_hz": self.sample_rate_hz,
        }

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Encode and decode, item by item.

        Raises:
            InputError: If the input is not (B, N).
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
