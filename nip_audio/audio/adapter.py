"""Adapt audio files to the core: read, batch, perturb and write waveforms."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from nip_audio.audio.io import AUDIO_SUFFIXES, Audio, ReadSettings, read_audio, write_audio
from nip_audio.audio.manifest import Recording
from nip_audio.core.adapter import Batch, Bounds

__all__ = ["WaveformAdapter"]


@dataclass(frozen=True)
class WaveformAdapter:
    """Convert audio files to batches of waveforms and back.

    Attributes:
        settings: Settings for reading files.
        bounds: Range of the samples.
    """

    settings: ReadSettings = field(default_factory=ReadSettings)
    bounds: Bounds = field(default_factory=lambda: Bounds(-1.0, 1.0))

    def load(self, path: Path) -> Audio:
        """Read one audio file; see ``read_audio``."""
        return read_audio(path, self.settings)

    @property
    def suffixes(self) -> frozenset[str]:
        """File name endings that a folder walk takes for audio."""
        return AUDIO_SUFFIXES

    def read(self, file: Recording) -> Audio:
        """Read one recording; see ``Recording.read``."""
        return file.read(self.settings)

    def collate(self, items: list[Audio]) -> Batch:
        """Pad recordings to (B, N); the ids are the SHA-256 of their files."""
        return Batch.collate([a.samples for a in items], tuple(a.sha256 for a in items))

    def project(self, x: Tensor, reference: Tensor, eps: float) -> Tensor:
        """Clip ``x`` to within ``eps`` (L∞) of ``reference`` and to the bounds."""
        return self.bounds.clip(torch.minimum(torch.maximum(x, reference - eps), reference + eps))

    def save(self, x: Tensor, path: Path) -> None:
        """Write (N,) samples as 16-bit audio; see ``write_audio``."""
        write_audio(path, x, self.settings.sample_rate_hz)
