"""Everything the screening measures of one recording, in one pass over it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from nip_audio.audio.condition import Condition, condition_of
from nip_audio.audio.io import Audio, ReadSettings
from nip_audio.audio.manifest import Recording
from nip_audio.audio.remote import is_url, remote_stamp
from nip_audio.core.adapter import Batch
from nip_audio.core.decision import evidence_vector
from nip_audio.core.nccr import NccrConfig, measure_nccr
from nip_audio.core.noise import Noise
from nip_audio.errors import AudioError
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.records import error_of

__all__ = [
    "AGAIN",
    "DETECTION_NOISES",
    "FileFacts",
    "FileMeasurer",
    "MeasuredFile",
    "Measurement",
    "default_config",
    "facts_of",
    "measure",
    "noise_generator",
    "stamp_of",
]

Array = NDArray[np.float64]

DETECTION_NOISES = tuple(
    Noise("gaussian", "raw", rms) for rms in (0.0005, 0.001, 0.002, 0.004, 0.008)
)
"""One draw of each told as much as thirteen noises with eight draws (docs/nccr.md)."""


AGAIN = "again"
"""Stamp of a file that may be readable next time though nothing about it has changed."""

_PASSING = ("missing", "unreadable")


@dataclass(frozen=True)
class Measurement:
    """What is known of one recording, without any judgement.

    Attributes:
        embedding: (D,) of unit length.
        evidence: (F + 1,) change rates, of a model with a head what the noise does to the decision,
            and, last, the length in seconds: a row for ``LogRates``.
        spectrum: (2B,) mean and standard deviation over time of each band of the model input, after
            the overall level is removed: what kind of audio it is.
    """

    embedding: Array
    evidence: Array
    spectrum: Array


@dataclass(frozen=True)
class FileFacts:
    """What is known of one file, without the model.

    Attributes:
        duration_s: Seconds.
        sample_rate_hz: Of the file.
        channels: Of the file.
        encoding: Of the file.
        sha256: Of the file's bytes.
        content_sha256: Of the decoded samples.
        clipped_share: Share of samples at full scale.
        changes: What reading it changed.
        condition: Traces of recording and transmission.
    """

    duration_s: float
    sample_rate_hz: int
    channels: int
    encoding: str
    sha256: str
    content_sha256: str
    clipped_share: float
    changes: tuple[str, ...]
    condition: Condition


@dataclass(frozen=True)
class MeasuredFile:
    """One file as the journal of a run keeps it: measured, or why it could not be.

    Attributes:
        id: Of the recording.
        speaker: Of the recording.
        stamp: Size and time of change: whoever finds another one measures again.
        facts: None if it could not be read.
        measurement: Likewise.
        error: ``code``, ``found`` and ``remedy`` if it could not be read.
    """

    id: str
    speaker: str | None
    stamp: str
    facts: FileFacts | None = None
    measurement: Measurement | None = None
    error: dict[str, str] | None = None


@dataclass(frozen=True)
class FileMeasurer:
    """Reads and measures files, one at a time: equal content gives equal results.

    Attributes:
        pretrained: Model.
        config: What is measured under noise.
        settings: How files are read.
        seed: Of the noise; each file's noise comes from the seed and the file's bytes.
    """

    pretrained: PretrainedModel
    config: NccrConfig
    settings: ReadSettings
    seed: int

    def __call__(self, recording: Recording) -> MeasuredFile:
        """Measure one file; one that cannot be read is a result as well."""
        stamp = stamp_of(recording)
        try:
            audio = recording.read(self.settings)
        except AudioError as err:
            stamp = AGAIN if err.code in _PASSING else stamp
            return MeasuredFile(recording.id, recording.speaker, stamp, error=error_of(err))
        return replace(
            self.measure_audio(audio), id=recording.id, speaker=recording.speaker, stamp=stamp
        )

    def measure_audio(self, audio: Audio) -> MeasuredFile:
        """Measure what was read already; the file it comes from stays unnamed."""
        measurement = measure(self.pretrained, audio, self.config, seed=self.seed)
        return MeasuredFile("", None, AGAIN, facts_of(audio), measurement)


def stamp_of(recording: Recording) -> str:
    """Return what a measurement depends on, without reading the file.

    Its size and time of change (of a URL: ``remote_stamp``) and what part of it is meant; a file
    that is not there, or that a link leads to from outside, has a stamp too.
    """
    if recording.leads_out:
        return "outside"
    part = "" if recording.span is None else f"@{recording.span}"
    if is_url(recording.path):
        return remote_stamp(str(recording.path)) + part
    try:
        status = os.stat(recording.path)
    except OSError as err:
        return f"none:{err.errno}"
    return f"{status.st_size}:{status.st_mtime_ns}{part}"


def default_config(pretrained: PretrainedModel, *, draws: int = 1) -> NccrConfig:
    """Return the noises that were chosen by measurement, at the card's default taps."""
    return NccrConfig(pretrained.card.default_taps, DETECTION_NOISES, draws)


def noise_generator(seed: int, content_sha256: str) -> torch.Generator:
    """Seed noise from the run and the content alone: order and batching change nothing."""
    digest = hashlib.sha256(f"{seed}:{content_sha256}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@torch.no_grad()
def measure(
    pretrained: PretrainedModel, audio: Audio, config: NccrConfig, *, seed: int
) -> Measurement:
    """Measure one recording; equal content and seed give equal results."""
    item = Batch(audio.samples[None])
    generator = noise_generator(seed, audio.sha256)
    result = measure_nccr(pretrained.model, item, config, generator=generator)
    features = pretrained.model.to_input(item).x[0]
    features = features - features.mean()
    spectrum = torch.cat([features.mean(dim=1), features.std(dim=1)])
    embedding = torch.nn.functional.normalize(result.embedding, dim=0)
    evidence = evidence_vector(pretrained.model, result)
    return Measurement(
        embedding=embedding.double().numpy(),
        evidence=np.append(evidence.double().numpy(), audio.duration_s),
        spectrum=spectrum.double().numpy(),
    )


def facts_of(audio: Audio) -> FileFacts:
    """Return what is known of a file without the model."""
    return FileFacts(
        duration_s=audio.duration_s,
        sample_rate_hz=audio.source_rate_hz,
        channels=audio.source_channels,
        encoding=audio.encoding,
        sha256=audio.sha256,
        content_sha256=audio.content_sha256,
        clipped_share=audio.clipped_share,
        changes=audio.changes,
        condition=condition_of(audio.samples, audio.sample_rate_hz),
    )
