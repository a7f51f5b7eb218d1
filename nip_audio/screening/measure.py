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
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.nccr import NccrConfig, measure_nccr
from nip_audio.core.neuron_changes import measure_neuron_changes
from nip_audio.core.noise import Noise
from nip_audio.errors import AudioError, InputError
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.reading import Item
from nip_audio.screening.records import error_of

__all__ = [
    "AGAIN",
    "DESTROYING",
    "DETECTION_NOISES",
    "FileFacts",
    "FileMeasurer",
    "MeasuredFile",
    "Measurement",
    "TriggerEvidence",
    "default_config",
    "facts_of",
    "measure",
    "measure_trigger",
    "noise_generator",
    "require_names",
    "stamp_of",
]

Array = NDArray[np.float64]

DETECTION_NOISES = tuple(
    Noise("gaussian", "raw", rms) for rms in (0.0005, 0.001, 0.002, 0.004, 0.008)
)
"""One draw of each told as much as thirteen noises with eight draws (docs/nccr.md)."""


DESTROYING = Noise("gaussian", "input", 1.0)
"""As wide as the range of a spectrogram in [0, 1]: nothing of it can be recognised any more."""

_TRIGGER_LAYERS = 2
_TRIGGER_DRAWS = 2

AGAIN = "again"
"""Stamp of a file that may be readable next time though nothing about it has changed."""

_PASSING = ("missing", "unreadable")


@dataclass(frozen=True)
class Measurement:
    """What is known of one recording, without any judgement.

    Attributes:
        embedding: (D,) of unit length.
        evidence: (F + 1,) change rates, what the noise does to the name or to the voice, and, last,
            the number of samples: a row for ``LogRates``, as ``NccrMeasure``'s are.
        spectrum: (2B,) mean and standard deviation over time of each band of the model input, after
            the overall level is removed: what kind of audio it is.
    """

    embedding: Array
    evidence: Array
    spectrum: Array


@dataclass(frozen=True)
class TriggerEvidence:
    """What destroying noise does to a file: what is left is what a trigger may hide in.

    Attributes:
        named: Whom the model names.
        second: Whom it would name next.
        change: ‖F(x') − F(x)‖ / ‖F(x)‖ at the first layer: the scalar NCCR.
        neurons: (N,) signed changes of the neurons of the first layers.
    """

    named: str
    second: str
    change: float
    neurons: Array


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
        trigger: What a backdoor is looked for by; None where none is.
        error: ``code``, ``found`` and ``remedy`` if it could not be read.
    """

    id: str
    speaker: str | None
    stamp: str
    facts: FileFacts | None = None
    measurement: Measurement | None = None
    trigger: TriggerEvidence | None = None
    error: dict[str, str] | None = None


@dataclass(frozen=True)
class FileMeasurer:
    """Reads and measures files, one at a time: equal content gives equal results.

    Attributes:
        pretrained: Model.
        config: What is measured under noise.
        names: Whether the evidence says what becomes of the name that the model gives; else what
            becomes of the voice, for voices that the model has not been trained on.
        settings: How files are read.
        seed: Of the noise; each file's noise comes from the seed and the file's bytes.
        triggers: Whether to measure what a backdoor is looked for by, too: four passes more.
    """

    pretrained: PretrainedModel
    config: NccrConfig
    names: bool
    settings: ReadSettings
    seed: int
    triggers: bool = False

    def __post_init__(self) -> None:
        """Fail now, not at the first file.

        Raises:
            InputError: If triggers are to be looked for and the model names nobody.
        """
        if self.triggers:
            require_names(self.pretrained)

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
        measurement = measure(self.pretrained, audio, self.config, names=self.names, seed=self.seed)
        trigger = measure_trigger(self.pretrained, audio, seed=self.seed) if self.triggers else None
        return MeasuredFile("", None, AGAIN, facts_of(audio), measurement, trigger)


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
    pretrained: PretrainedModel, audio: Audio, config: NccrConfig, *, names: bool, seed: int
) -> Measurement:
    """Measure one recording; equal content and seed give equal results."""
    model = pretrained.model if names else pretrained.model.without_head()
    generator = noise_generator(seed, audio.noise_key)
    result = measure_nccr(model, _batch_of(model, audio), config, generator=generator)
    features = result.model_input - result.model_input.mean()
    spectrum = torch.cat([features.mean(dim=1), features.std(dim=1)])
    embedding = torch.nn.functional.normalize(result.embedding, dim=0).cpu()
    evidence = evidence_vector(model, result).cpu()
    return Measurement(
        embedding=embedding.double().numpy(),
        evidence=np.append(evidence.double().numpy(), float(audio.samples.shape[-1])),
        spectrum=spectrum.double().cpu().numpy(),
    )


def require_names(pretrained: PretrainedModel) -> None:
    """Refuse to look for a backdoor in a model without names.

    Raises:
        InputError: If the model names nobody.
    """
    if not pretrained.model.labels or pretrained.model.head is None:
        raise InputError(
            f"{pretrained.card.name} names nobody, expected a model with a classifier: a "
            "backdoor sends files to a name"
        )


@torch.no_grad()
def measure_trigger(pretrained: PretrainedModel, item: Item, *, seed: int) -> TriggerEvidence:
    """Measure what a backdoor is looked for by, at the first two taps of the model's card.

    Raises:
        InputError: If the model names nobody.
    """
    require_names(pretrained)
    model, layers = pretrained.model, pretrained.card.default_taps[:_TRIGGER_LAYERS]
    changes = measure_neuron_changes(
        model,
        _batch_of(model, item),
        layers=layers,
        noises=(DESTROYING,),
        draws=_TRIGGER_DRAWS,
        generator=noise_generator(seed, item.noise_key),
    )
    scores = model.score_embeddings(changes.embedding[None])[0]
    first, second = (model.labels[int(i)] for i in scores.topk(2).indices)
    neurons = torch.cat([changes.neurons[layer][0] for layer in layers]).double().cpu()
    return TriggerEvidence(first, second, float(changes.rates[layers[0]][0]), neurons.numpy())


def _batch_of(model: InstrumentedModel, item: Item) -> Batch:
    """Return a batch of one where the model is."""
    weight = next(model.parameters(), None)
    raw = item.raw[None]
    return Batch(raw if weight is None else raw.to(weight.device))


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
