"""Measure one file for a screening: how a network's neurons and decision respond to noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from nip_audio.audio.manifest import Recording
from nip_audio.audio.remote import is_url
from nip_audio.core.adapter import Batch
from nip_audio.core.decision import evidence_vector
from nip_audio.core.modality import FileContent
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.nccr import NccrConfig, NccrResult, measure_nccr
from nip_audio.core.neuron_changes import measure_neuron_changes
from nip_audio.core.noise import Noise
from nip_audio.core.seeds import generator_of
from nip_audio.errors import FileError, InputError, NipAudioError, lacks_memory
from nip_audio.models.modalities import modality_of
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.measured import RETRY, MeasuredFile, TriggerEvidence
from nip_audio.screening.probes import Probe
from nip_audio.screening.records import error_of
from nip_audio.screening.stamps import stamp_of

if TYPE_CHECKING:
    from nip_audio.screening.kind import Kind

__all__ = [
    "DESTRUCTIVE_NOISE",
    "FileMeasurer",
    "batch_of",
    "default_config",
    "device_of",
    "measure_evidence",
    "measure_trigger",
    "noise_generator",
    "require_names",
]

DESTRUCTIVE_NOISE = Noise("gaussian", "input", 1.0)
"""Noise as large as the range of a spectrogram in [0, 1], which leaves nothing recognisable."""

_TRIGGER_DRAWS = 2

_TRIES = 3

_PASSING = ("missing", "unreadable", "changing", "no_memory", "failed")

_FAILURES = (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
"""What libraries raise for content that they do not expect."""


@dataclass(frozen=True)
class FileMeasurer:
    """Reads and measures files, one at a time; equal content gives equal results.

    Attributes:
        pretrained: Model that measures the files.
        probe: What is measured for the detector.
        kind: Modality of the files, and how they are read and measured.
        seed: Seed of the noise generator; each file's noise depends on the seed and its bytes.
        triggers: Whether to measure the evidence for backdoor triggers too, in four more passes.
        speech: Whether to measure what the enrolment gate asks for, too.
    """

    pretrained: PretrainedModel
    probe: Probe
    kind: Kind
    seed: int
    triggers: bool = False
    speech: bool = False

    def __post_init__(self) -> None:
        """Fail now, not at the first file, if the model cannot show triggers.

        Raises:
            InputError: If triggers are to be measured and the model has no classifier.
        """
        if self.triggers:
            require_names(self.pretrained)

    def __call__(self, recording: Recording) -> MeasuredFile:
        """Measure one file; one that cannot be read or measured gives a result with an error.

        A file that changes while it is read is read again, so that what was hashed, decoded and
        measured is one content.
        """
        for _ in range(_TRIES):
            stamp = stamp_of(recording)
            measured = self._measured(recording)
            if is_url(recording.path) or stamp_of(recording) == stamp:
                break
        else:
            changing = FileError(
                recording.path,
                code="changing",
                found=f"it changed while it was read, {_TRIES} times",
                remedy="wait until nothing writes to it, and screen again",
            )
            measured = MeasuredFile("", None, RETRY, error=error_of(changing))
        passing = measured.error is not None and measured.error["code"] in _PASSING
        return replace(
            measured,
            id=recording.id,
            speaker=recording.speaker,
            stamp=RETRY if passing else stamp,
        )

    def _measured(self, recording: Recording) -> MeasuredFile:
        """Measure one file, whatever its content makes of the libraries that read it."""
        try:
            return self.measure_item(self.kind.reader.read(recording))
        except FileError as err:
            error = error_of(err)
            if err.code == "missing" and not str(recording.path).endswith(recording.id):
                error["found"] += f": {recording.path}"
            return MeasuredFile("", None, RETRY, error=error)
        except NipAudioError:
            raise
        except _FAILURES as err:
            return MeasuredFile("", None, RETRY, error=error_of(_failure(recording, err)))

    def measure_item(self, item: FileContent) -> MeasuredFile:
        """Measure content that was read before; the result has an empty id.

        Raises:
            FileError: With code ``not_finite``, if the model's output is not finite.
        """
        measurement = self.kind.measure(self.pretrained, item, self.probe, seed=self.seed)
        _require_numbers(measurement)
        trigger = measure_trigger(self.pretrained, item, seed=self.seed) if self.triggers else None
        speech = self.kind.measure_speech(self.pretrained, item) if self.speech else None
        return MeasuredFile(
            "", None, RETRY, self.kind.facts(item), measurement, trigger, speech=speech
        )


def _failure(recording: Recording, err: BaseException) -> FileError:
    """Return what to record of a file for which a library raised an error."""
    said = " ".join(str(err).split())[:200]
    what = f"{type(err).__name__}: {said}" if said else type(err).__name__
    if lacks_memory(err):
        return FileError(
            recording.path,
            code="no_memory",
            found=f"there was too little memory to measure it ({what})",
            remedy="provide more memory, or split the file, and screen again",
        )
    return FileError(
        recording.path,
        code="failed",
        found=f"measuring it failed ({what})",
        remedy="convert it to a 16-bit wav and screen again; if other files fail in the same way, "
        "run nip-audio doctor",
    )


def default_config(pretrained: PretrainedModel, *, draws: int = 1) -> NccrConfig:
    """Return the detector's default settings: its noises at the card's default taps.

    A card may have noises of its own, chosen for how far they move this model's embeddings.
    """
    card = pretrained.card
    noises = tuple(Noise(**noise) for noise in card.data.get("noises") or ())
    return NccrConfig(card.default_taps, noises or modality_of(card).noises, draws)


def noise_generator(seed: int, content_sha256: str) -> torch.Generator:
    """Return a noise generator for one content; order and batching of files do not affect it.

    Args:
        seed: Seed of the run.
        content_sha256: Hash, or another text, that stands for the content.
    """
    return generator_of(seed, content_sha256, bits=63)


def measure_evidence(
    model: InstrumentedModel, item: FileContent, config: NccrConfig, seed: int
) -> tuple[NccrResult, NDArray[np.float64]]:
    """Measure how noise changes the layers and the decision of a model.

    Returns:
        The whole result, and the evidence of a measurement, whose last entry is the size of the
        last axis of the content.
    """
    generator = noise_generator(seed, item.noise_key)
    result = measure_nccr(model, batch_of(model, item), config, generator=generator)
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
    changed, put_out = modality_of(card).trigger_plan.layers(card.default_taps)
    changes = measure_neuron_changes(
        model,
        batch_of(model, item),
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


def batch_of(model: InstrumentedModel, item: FileContent) -> Batch:
    """Return a batch of one item on the model's device."""
    return Batch(item.raw[None].to(device_of(model)))


def device_of(model: InstrumentedModel) -> torch.device:
    """Return the device of a model's weights."""
    weight = next(model.parameters(), None)
    return torch.device("cpu") if weight is None else weight.device
