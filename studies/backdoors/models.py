"""Train and keep the models of a backdoor study, and measure what their backdoors achieve."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.state import State, load_state, save_state
from nip_audio.errors import InputError
from studies.backdoors.image_triggers import IMAGE_TRIGGERS
from studies.backdoors.poisoning import Clips, PoisonedClips, poison
from studies.backdoors.triggers import TRIGGERS

__all__ = [
    "NO_TRIGGER",
    "BackdoorCase",
    "Success",
    "Training",
    "identity_of",
    "poisoned_by",
    "predictions",
    "success_of",
    "trigger_of",
]

NO_TRIGGER = "none"
_KIND = "backdoor study model"
_BATCH = 64


class Training(Protocol):
    """Settings of a training; a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def blank(self, clips: Clips, seed: int) -> InstrumentedModel:
        """Return an untrained model of the clips' classes."""
        ...

    def train(self, clips: Clips, seed: int, progress: Callable[[str], None]) -> InstrumentedModel:
        """Train a model on clips; the progress describes each epoch."""
        ...


@dataclass(frozen=True)
class BackdoorCase:
    """One model of the study.

    Attributes:
        trigger: Key of ``TRIGGERS`` or ``IMAGE_TRIGGERS``, or ``NO_TRIGGER``.
        seed: Seed of poisoning and training.
        share: Share of the clips that are poisoned.
        training: Settings of the training.

    Raises:
        InputError: If there is no such trigger.
    """

    trigger: str
    seed: int
    share: float
    training: Training

    def __post_init__(self) -> None:
        """Check the trigger."""
        known = [NO_TRIGGER, *TRIGGERS, *IMAGE_TRIGGERS]
        if self.trigger not in known:
            raise InputError(f"no trigger {self.trigger!r}, expected one of {', '.join(known)}")

    @property
    def name(self) -> str:
        """Name of the case, usable as a file name."""
        return f"{self.trigger.replace(' ', '-')}_{self.seed}"

    def model(
        self,
        train: PoisonedClips,
        folder: Path,
        progress: Callable[[str], None] = lambda what: None,
    ) -> InstrumentedModel:
        """Return the model: the kept one of the same clips and settings, or a newly trained one.

        Args:
            train: Clips to train on.
            folder: Folder where models are kept.
            progress: Called with a description of each epoch.

        Raises:
            StateError: If the folder holds a model of this name from other clips or settings.
        """
        path = folder / f"{self.name}.safetensors"
        identity = identity_of([self.seed, asdict(self.training)], train)
        if path.exists():
            model = self.training.blank(train.clips, self.seed)
            model.load_state_dict(dict(load_state(path, kind=_KIND, model_id=identity).tensors))
            return model.eval()
        model = self.training.train(train.clips, self.seed, progress)
        save_state(path, State(_KIND, identity, model.state_dict(), {}))
        return model


def identity_of(settings: object, train: PoisonedClips) -> str:
    """Return a hash of everything that a model's weights depend on: settings, clips, labels."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for tensor in (train.clips.samples, train.clips.labels):
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def trigger_of(case: BackdoorCase, clips: Clips) -> Callable[[Tensor], Tensor] | None:
    """Return the function that adds the case's trigger to waveforms or images, if it has one."""
    if case.trigger == NO_TRIGGER:
        return None
    if clips.sample_rate_hz is None:
        return IMAGE_TRIGGERS[case.trigger]()
    return partial(TRIGGERS[case.trigger](), sample_rate_hz=clips.sample_rate_hz)


def poisoned_by(
    case: BackdoorCase, clips: Clips, *, salt: str = "", target: int | None = None
) -> PoisonedClips:
    """Poison clips as the case says; another ``salt`` chooses other clips."""
    digest = hashlib.sha256(f"{salt}{case.seed}".encode()).hexdigest()
    seed = int(digest[:8], 16) if salt else case.seed
    return poison(clips, trigger_of(case, clips), share=case.share, seed=seed, target=target)


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
    trigger = trigger_of(case, clean)
    attack = None
    if trigger is not None:
        attack = predictions(model, trigger(clean.samples[others])) == target
    return Success(named == clean.labels, attack, named[others] == target, others)
