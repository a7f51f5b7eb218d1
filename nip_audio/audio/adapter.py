"""Adapt audio files to the core: read and write waveforms."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from nip_audio.audio.io import AUDIO_SUFFIXES, Audio, ReadSettings, read_audio, write_audio
from nip_audio.audio.manifest import Recording

__all__ = ["WaveformAdapter", "read_back"]


@dataclass(frozen=True)
class WaveformAdapter:
    """Convert audio files to waveforms and back.

    Attributes:
        settings: Settings for reading files.
    """

    tag: ClassVar[str] = "audio"

    settings: ReadSettings = field(default_factory=ReadSettings)

    @staticmethod
    def at(
        sample_rate_hz: int, max_duration_s: float | None = None, channel: int | None = None
    ) -> WaveformAdapter:
        """Return the reader for a model of this sample rate.

        Args:
            sample_rate_hz: Sample rate of the model.
            max_duration_s: Longest duration; None keeps the default.
            channel: Number of the channel to read, from 1; None reads the mean of all.
        """
        settings = ReadSettings(sample_rate_hz=sample_rate_hz, channel=channel)
        if max_duration_s is not None:
            settings = replace(settings, max_duration_s=max_duration_s)
        return WaveformAdapter(settings)

    @property
    def suffixes(self) -> frozenset[str]:
        """File name endings that a folder walk takes for audio."""
        return AUDIO_SUFFIXES

    def load(self, path: Path | str) -> Audio:
        """Read one audio file; see ``read_audio``."""
        return read_audio(path, self.settings)

    def read(self, file: Recording) -> Audio:
        """Read one recording; see ``Recording.read``."""
        return file.read(self.settings)

    def read_back(self, path: Path) -> Audio:
        """Read a written file; see ``read_back``."""
        return read_back(path, self.settings)

    def save(self, x: Tensor, path: Path, *, force: bool = False) -> None:
        """Write (N,) samples as 16-bit audio; see ``write_audio``."""
        write_audio(path, x, self.settings.sample_rate_hz, force=force)

    def to_json(self) -> dict[str, Any]:
        """Return the settings of the audio reader."""
        return asdict(self.settings)


def read_back(path: Path, settings: ReadSettings) -> Audio:
    """Read a written recording whatever its length and level."""
    permissive = replace(
        settings,
        channel=None,
        min_duration_s=1e-4,
        min_sound_s=0.0,
        min_rms=1e-9,
        max_clipped_share=1.0,
    )
    return read_audio(path, permissive)
