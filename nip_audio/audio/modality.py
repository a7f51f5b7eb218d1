"""Audio as a modality: everything in which recordings differ from other files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.archives import is_archive
from nip_audio.audio.io import AUDIO_SUFFIXES, ReadSettings
from nip_audio.audio.manifest import Recording, read_recordings
from nip_audio.core.adapter import Bounds
from nip_audio.core.modality import Card, Endings, TriggerPlan
from nip_audio.core.noise import Noise
from nip_audio.errors import AudioError, FileError, InputError

__all__ = ["DETECTION_NOISES", "MODALITY", "AudioModality"]

DETECTION_NOISES = tuple(
    Noise("gaussian", "raw", rms) for rms in (0.0005, 0.001, 0.002, 0.004, 0.008)
)
"""Noises of the detector. One draw of each detects as much as thirteen noises with eight draws
(docs/results/nccr.md)."""


@dataclass(frozen=True)
class AudioModality:
    """Recordings; see ``nip_audio.core.modality.Modality``."""

    name: ClassVar[str] = "audio"
    error: ClassVar[type[FileError]] = AudioError
    plural: ClassVar[str] = "recordings"
    expected: ClassVar[str] = "no audio file in {}, expected wav, flac, ogg or mp3"
    suffixes: ClassVar[frozenset[str]] = AUDIO_SUFFIXES
    bounds: ClassVar[Bounds] = Bounds(-1.0, 1.0)
    parts: ClassVar[tuple[str, ...]] = ("compute_features", "embedding_model")
    noises: ClassVar[tuple[Noise, ...]] = DETECTION_NOISES
    # the first two taps: docs/results/backdoors.md
    trigger_plan: ClassVar[TriggerPlan] = TriggerPlan(slice(0, 2), slice(0, 2))
    default_eps: ClassVar[float] = 0.002
    attack_level: ClassVar[Literal["raw", "input"]] = "raw"
    default_goal: ClassVar[str] = "reject"
    attacked: ClassVar[Endings] = Endings(".wav", kept=True)
    purified: ClassVar[Endings] = Endings(".wav")
    folder_is_group: ClassVar[bool] = True
    missing_options: ClassVar[Mapping[str, frozenset[str]]] = {}

    def channels(self, card: Card) -> int:
        """Return 1 for a spectrogram, 2 for the real and imaginary part of a spectrum."""
        return int(card.data.get("channels", 1))

    def reader(
        self, card: Card, *, max_duration_s: float | None = None, channel: int | None = None
    ) -> WaveformAdapter:
        """Return how recordings are read at the sample rate of a model."""
        return WaveformAdapter.at(int(card.data["sample_rate_hz"]), max_duration_s, channel)

    def reader_of_json(self, settings: Mapping[str, Any]) -> WaveformAdapter:
        """Return the reader with these settings.

        Raises:
            TypeError: If they are not those of an audio reader.
        """
        return WaveformAdapter(ReadSettings(**settings))

    def listed(
        self, source: Path, data_root: str | None, *, follow_links: bool
    ) -> list[Recording] | None:
        """Return the recordings of a manifest; None for a folder or an archive.

        Raises:
            InputError: If the manifest cannot be read.
        """
        if source.is_dir() or is_archive(source) or not (source.suffix or source.is_file()):
            return None
        return read_recordings(source, data_root=data_root, follow_links=follow_links)

    def require_same_input(self, first: Card, other: Card, *, level: str) -> None:
        """Refuse models of two sample rates and, for noise in the input, of two front ends.

        Raises:
            InputError: If noise of one size is not the same noise for both.
        """
        rates = [card.data["sample_rate_hz"] for card in (first, other)]
        if rates[0] != rates[1]:
            raise InputError(
                f"{first.name} works at {rates[0]} Hz, {other.name} at {rates[1]} Hz: they do not "
                "hear the same noise; compare models of one sample rate"
            )
        own, others = first.data.get("features"), other.data.get("features")
        if own != others and level == "input":
            raise InputError(
                f"the front end of {first.name} is {own}, that of {other.name} {others}: noise of "
                "one size in their inputs is not the same noise; compare models of one front end, "
                "or use noise of level 'raw', in the waveform"
            )


MODALITY = AudioModality()
"""How recordings are read, described and written."""
