"""Train and keep the models of a backdoor study, and measure what their backdoors achieve."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.state import State, load_state, save_state
from nip_audio.errors import InputError
from studies.backdoors.poisoned_training import (
    ShortTraining,
    build_audionet,
    train_audionet,
)
from studies.backdoors.poisoning import Clips, PoisonedClips, poison
from studies.backdoors.triggers import TRIGGERS

__all__ = [
    "NO_TRIGGER",
    "BackdoorCase",
    "Success",
    "identity_of",
    "kept_model",
    "poisoned_by",
    "predictions",
    "success_of",
]

NO_TRIGGER = "none"
_KIND = "backdoor study model"
_BATCH = 64


@dataclass(frozen=True)
class BackdoorCase:
    """One model of the study.

    Attributes:
        trigger: Key of ``TRIGGERS``, or ``NO_TRIGGER``.
        seed: Seed of poisoning and training.
        share: Share of the clips that are poisoned.
        training: Settings of the training.

    Raises:
        InputError: If there is no such trigger.
    """

    trigger: str
    seed: int
    share: float
    training: ShortTraining

    def __post_init__(self) -> None:
        """Check the trigger."""
        if self.trigger not in (NO_TRIGGER, *TRIGGERS):
            raise InputError(
                f"no trigger {self.trigger!r}, expected one of {', '.join([NO_TRIGGER, *TRIGGERS])}"
            )

    @property
    def name(self) -> str:
        """Name of the case, usable as a file name."""
        return f"{self.trigger.replace(' ', '-')}_{self.seed}"

    def model(
        self,
        train: PoisonedClips,
        folder: Path,
        progress: Callable[[int, float], None] = lambda epoch, loss: None,
    ) -> InstrumentedModel:
        """Return the model: the kept one of the same clips and settings, or a newly trained one.

        Args:
            train: Clips to train on.
            folder: Folder where models are kept.
            progress: Called after each epoch with its number and mean loss.

        Raises:
            StateError: If the folder holds a model of this name from other clips or settings.
        """
        clips = train.clips
        return kept_model(
            folder / f"{self.name}.safetensors",
            identity_of([self.seed, asdict(self.training)], train),
            blank=lambda: build_audionet(clips.speakers, n_mels=self.training.n_mels),
            train=lambda: train_audionet(
                clips.samples,
                clips.labels,
                clips.speakers,
                self.training,
                seed=self.seed,
                progress=progress,
            ),
        )


def identity_of(settings: object, train: PoisonedClips) -> str:
    """Return a hash of everything that a model's weights depend on: settings, clips, labels."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for tensor in (train.clips.samples, train.clips.labels):
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def kept_model(
    path: Path,
    identity: str,
    *,
    blank: Callable[[], InstrumentedModel],
    train: Callable[[], InstrumentedModel],
) -> InstrumentedModel:
    """Return a kept model, or train it and keep it.

    Args:
        path: File of the model.
        identity: Identity of training data and settings.
        blank: Function that builds the untrained model.
        train: Function that trains the model.

    Raises:
        StateError: If the file holds another model.
    """
    if path.exists():
        model = blank()
        model.load_state_dict(dict(load_state(path, kind=_KIND, model_id=identity).tensors))
        return model.eval()
    model = train()
    save_state(path, State(_KIND, identity, model.state_dict(), {}))
    return model


def poisoned_by(
    case: BackdoorCase, clips: Clips, *, salt: str = "", target: int | None = None
) -> PoisonedClips:
    """Poison clips as the case says; another ``salt`` chooses other clips."""
    trigger = (
        None
        if case.trigger == NO_TRIGGER
        else partial(TRIGGERS[case.trigger](), sample_rate_hz=_rate_of(clips))
    )
    digest = hashlib.sha256(f"{salt}{case.seed}".encode()).hexdigest()
    seed = int(digest[:8], 16) if salt else case.seed
    return poison(clips, trigger, share=case.share, seed=seed, target=target)


def _rate_of(clips: Clips) -> int:
    if clips.sample_rate_hz is None:
        raise InputError("the items have no sample rate, expected waveforms")
    return clips.sample_rate_hz


@torch.no_grad()
def predictions(model: InstrumentedModel, samples: Tensor) -> Tensor:
    """Classify clips (n, N); return their classes, (n,)."""
    return torch.cat([model.predict(Batch(part)) for part in torch.split(samples, _BATCH)])


@dataclass(frozen=True)
class Success:
    """Success of an attack by poisoning, on clips that the model has not seen.

    Attributes:
        accuracy: (n,) whether each clean clip is classified correctly.
        attack: (m,) whether each clip of a speaker other than the target is predicted as the target
            with the trigger; None if the training set was not poisoned.
        without: (m,) whether each of these clips is predicted as the target without the trigger.
        others: (m,) indices of these clips.
    """

    accuracy: Tensor
    attack: Tensor | None
    without: Tensor
    others: Tensor


def success_of(model: InstrumentedModel, case: BackdoorCase, clean: Clips, target: int) -> Success:
    """Measure accuracy and attack success on clean clips of the ``test`` role."""
    named = predictions(model, clean.samples)
    others = torch.nonzero(clean.labels != target)[:, 0]
    attack = None
    if case.trigger != NO_TRIGGER:
        triggered = TRIGGERS[case.trigger]()(clean.samples[others], _rate_of(clean))
        attack = predictions(model, triggered) == target
    return Success(named == clean.labels, attack, named[others] == target, others)
