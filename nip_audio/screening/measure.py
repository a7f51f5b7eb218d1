"""Measure one file for a screening: how a network's neurons and decision respond to noise."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from nip_audio.audio.condition import condition_of
from nip_audio.audio.io import Audio
from nip_audio.audio.manifest import Recording
from nip_audio.audio.remote import is_url, remote_stamp
from nip_audio.core.adapter import Batch
from nip_audio.core.decision import evidence_vector
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.nccr import NccrConfig, NccrResult, measure_nccr
from nip_audio.core.neuron_changes import measure_neuron_changes
from nip_audio.core.noise import Noise
from nip_audio.errors import FileError, InputError
from nip_audio.image.adapter import Image
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.measured import (
    RETRY,
    FileFacts,
    ImageMeasurement,
    MeasuredFile,
    Measurement,
    TriggerEvidence,
)
from nip_audio.screening.reading import FileContent, Kind
from nip_audio.screening.records import error_of
from nip_audio.screening.trigger_plan import TRIGGER_PLANS

__all__ = [
    "DESTRUCTIVE_NOISE",
    "DETECTION_NOISES",
    "FileMeasurer",
    "default_config",
    "facts_of",
    "measure",
    "measure_image",
    "measure_trigger",
    "noise_generator",
    "require_names",
    "stamp_of",
]

DETECTION_NOISES = tuple(
    Noise("gaussian", "raw", rms) for rms in (0.0005, 0.001, 0.002, 0.004, 0.008)
)
"""Noises of the detector. One draw of each detects as much as thirteen noises with eight draws
(docs/results/nccr.md)."""


DESTRUCTIVE_NOISE = Noise("gaussian", "input", 1.0)
"""Noise as large as the range of a spectrogram in [0, 1], which leaves nothing recognisable."""

_TRIGGER_DRAWS = 2

_PASSING = ("missing", "unreadable")


@dataclass(frozen=True)
class FileMeasurer:
    """Reads and measures files, one at a time; equal content gives equal results.

    Attributes:
        pretrained: Model that measures the files.
        config: Noises and layers of the measurement.
        names: Whether the evidence is how noise changes the predicted label. If not, it is how
            noise changes the embedding, for voices that the model was not trained on.
        kind: Modality of the files, and how they are read and measured.
        seed: Seed of the noise generator; each file's noise depends on the seed and its bytes.
        triggers: Whether to measure the evidence for backdoor triggers too, in four more passes.
    """

    pretrained: PretrainedModel
    config: NccrConfig
    names: bool
    kind: Kind
    seed: int
    triggers: bool = False

    def __post_init__(self) -> None:
        """Fail now, not at the first file, if the model cannot show triggers.

        Raises:
            InputError: If triggers are to be measured and the model has no classifier.
        """
        if self.triggers:
            require_names(self.pretrained)

    def __call__(self, recording: Recording) -> MeasuredFile:
        """Measure one file; one that cannot be read gives a result with an error."""
        stamp = stamp_of(recording)
        try:
            measured = self.measure_item(self.kind.read(recording))
        except FileError as err:
            stamp = RETRY if err.code in _PASSING else stamp
            return MeasuredFile(recording.id, recording.speaker, stamp, error=error_of(err))
        return replace(measured, id=recording.id, speaker=recording.speaker, stamp=stamp)

    def measure_item(self, item: FileContent) -> MeasuredFile:
        """Measure content that was read before; the result has an empty id.

        Raises:
            FileError: With code ``not_finite``, if the model's output is not finite.
        """
        measurement = self.kind.measure(
            self.pretrained, item, self.config, names=self.names, seed=self.seed
        )
        _require_numbers(measurement)
        trigger = measure_trigger(self.pretrained, item, seed=self.seed) if self.triggers else None
        return MeasuredFile("", None, RETRY, self.kind.facts(item), measurement, trigger)


def stamp_of(recording: Recording) -> str:
    """Return a text that changes whenever the file changes, without reading the file.

    It holds the file's size and modification time (for a URL, its ``remote_stamp``) and the part of
    it that is used. A missing file, or one behind a link out of the folder, has a stamp too.
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
    """Return the detector's default settings: ``DETECTION_NOISES`` at the card's default taps."""
    return NccrConfig(pretrained.card.default_taps, DETECTION_NOISES, draws)


def noise_generator(seed: int, content_sha256: str) -> torch.Generator:
    """Return a noise generator for one content; order and batching of files do not affect it.

    Args:
        seed: Seed of the run.
        content_sha256: Hash, or another text, that stands for the content.
    """
    digest = hashlib.sha256(f"{seed}:{content_sha256}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@torch.no_grad()
def measure(
    pretrained: PretrainedModel, audio: Audio, config: NccrConfig, *, names: bool, seed: int
) -> Measurement:
    """Measure one recording; equal content and seed give equal results."""
    model = pretrained.model if names else pretrained.model.without_head()
    result, evidence = _measure_evidence(model, audio, config, seed)
    features = result.model_input - result.model_input.mean()
    spectrum = torch.cat([features.mean(dim=1), features.std(dim=1)])
    embedding = torch.nn.functional.normalize(result.embedding, dim=0).cpu()
    return Measurement(
        embedding=embedding.double().numpy(),
        evidence=evidence,
        spectrum=spectrum.double().cpu().numpy(),
    )


@torch.no_grad()
def measure_image(
    pretrained: PretrainedModel, picture: Image, config: NccrConfig, *, seed: int
) -> ImageMeasurement:
    """Measure one image; equal content and seed give equal results.

    Raises:
        InputError: If the model has no classifier.
    """
    require_names(pretrained)
    model = pretrained.model
    result, evidence = _measure_evidence(model, picture, config, seed)
    named = int(model.score_embeddings(result.embedding[None])[0].argmax())
    return ImageMeasurement(evidence, model.labels[named])


def _measure_evidence(
    model: InstrumentedModel, item: FileContent, config: NccrConfig, seed: int
) -> tuple[NccrResult, NDArray[np.float64]]:
    generator = noise_generator(seed, item.noise_key)
    result = measure_nccr(model, _batch_of(model, item), config, generator=generator)
    evidence = evidence_vector(model, result).cpu().double().numpy()
    return result, np.append(evidence, float(item.raw.shape[-1]))


def require_names(pretrained: PretrainedModel) -> None:
    """Refuse a model without a classifier where the predicted label is needed.

    Raises:
        InputError: If the model has no classifier.
    """
    if not pretrained.model.labels or pretrained.model.head is None:
        raise InputError(
            f"model {pretrained.card.name} has no classifier, expected one, because this check "
            "needs the label that the model predicts; pass a model with a classifier"
        )


@torch.no_grad()
def measure_trigger(
    pretrained: PretrainedModel, item: FileContent, *, seed: int
) -> TriggerEvidence:
    """Measure the evidence for a backdoor trigger, at the layers of the model's ``TriggerPlan``.

    Raises:
        InputError: If the model has no classifier.
        FileError: With code ``not_finite``, if the model's output is not finite.
    """
    require_names(pretrained)
    model, card = pretrained.model, pretrained.card
    changed, put_out = TRIGGER_PLANS[card.modality].layers(card.default_taps)
    changes = measure_neuron_changes(
        model,
        _batch_of(model, item),
        layers=tuple(dict.fromkeys((*changed, *put_out))),
        noises=(DESTRUCTIVE_NOISE,),
        draws=_TRIGGER_DRAWS,
        generator=noise_generator(seed, item.noise_key),
    )
    scores = model.score_embeddings(changes.embedding[None])[0]
    best = scores.topk(2)
    first, second = (model.labels[int(i)] for i in best.indices)
    neurons = torch.cat([changes.neurons[layer][0] for layer in changed])
    outputs = changes.unit_outputs(put_out)
    lead = float(best.values[0] - best.values[1])
    evidence = TriggerEvidence(
        first,
        second,
        lead,
        float(changes.rates[changed[0]][0]),
        neurons.double().cpu().numpy(),
        outputs.double().cpu().numpy(),
    )
    _require_numbers(evidence)
    return evidence


def _require_numbers(measured: object) -> None:
    """Refuse values that are not finite: JSON has none, and they would spoil comparisons."""
    values = [v for v in vars(measured).values() if isinstance(v, float | np.ndarray)]
    if not all(np.isfinite(value).all() for value in values):
        raise FileError(
            "a file",
            code="not_finite",
            found="the model's output for this file is NaN or infinite",
            remedy="leave the file out; if this happens with many files, train the model again",
        )


def _batch_of(model: InstrumentedModel, item: FileContent) -> Batch:
    """Return a batch of one item on the model's device."""
    weight = next(model.parameters(), None)
    raw = item.raw[None]
    return Batch(raw if weight is None else raw.to(weight.device))


def facts_of(audio: Audio) -> FileFacts:
    """Return what is known about a recording without the model."""
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
