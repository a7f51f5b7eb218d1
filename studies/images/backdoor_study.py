"""Study backdoors on images, with the detectors and baselines of the audio study."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nip_audio.core.model import InstrumentedModel
from nip_audio.evaluation.statistics import proportion
from nip_audio.image.datasets import ImageSet
from nip_audio.image.models.small_vgg import SmallVgg
from nip_audio.training.image_training import ImageTraining, image_model, train_images
from studies.backdoors.judging import (
    JudgingPlan,
    MeasuredSet,
    judge_baselines,
    judge_set,
    measure_set,
)
from studies.backdoors.models import identity_of, kept_model, predictions
from studies.backdoors.poisoning import Clips, PoisonedClips, poison
from studies.images.triggers import TRIGGERS

__all__ = ["NO_TRIGGER", "ImageBackdoors"]

NO_TRIGGER = "none"


@dataclass(frozen=True)
class ImageBackdoors:
    """Poisoned training sets of one data set, models trained on them, and detectors of the poison.

    Attributes:
        train: Images to poison and train on.
        test: Images for accuracy and attack success, and clean images for STRIP.
        training: Settings of the training.
        width: Width of the network.
        share: Share of the images that are poisoned.
        judging: Settings of the detectors.
        kept: Folder where models and measurements are kept, by everything that they depend on;
            None keeps none.
        progress: Called with a description of each step.
    """

    train: ImageSet
    test: ImageSet
    training: ImageTraining
    width: int = 12
    share: float = 0.1
    judging: JudgingPlan = field(
        default_factory=lambda: JudgingPlan(
            layers=("pairs.2",),
            output_layers=("pairs.1",),
            small=8 / 255,
        )
    )
    kept: Path | None = None
    progress: Callable[[str], None] = lambda what: None

    def result(self, trigger: str, *, seed: int) -> dict[str, Any]:
        """Poison, train, measure and judge; only the scoring knows which images are poisoned.

        Args:
            trigger: Key of ``TRIGGERS``, or ``NO_TRIGGER``.
            seed: Seed of poisoning and training.
        """
        clips = Clips(self.train.pixels, self.train.labels, self.train.classes)
        made = None if trigger == NO_TRIGGER else TRIGGERS[trigger]()
        poisoned = poison(clips, made, share=self.share, seed=seed)
        model = self._model(poisoned, seed)
        others = torch.nonzero(self.test.labels != poisoned.target)[:, 0]
        clean = predictions(model, self.test.pixels)
        owners = tuple(map(str, range(len(self.test))))
        found: dict[str, Any] = {
            "trigger": trigger,
            "seed": seed,
            "pictures": len(clips),
            "poisoned": int(poisoned.poisoned.sum()),
            "snr_db": poisoned.median_snr_db,
            "accuracy": _share(clean == self.test.labels, owners, seed),
        }
        if made is not None:
            hit = predictions(model, made(self.test.pixels[others])) == poisoned.target
            found["attack_success"] = _share(hit, owners[: len(hit)], seed)
        self.progress(f"{trigger}: measure")
        measured = self._measured(model, poisoned, seed)
        found["judged"] = judge_set(model, poisoned, measured, self.judging)
        found["baselines"] = judge_baselines(
            model,
            poisoned,
            measured.embeddings,
            self.test.pixels[:100],
            self.judging,
            seed=seed,
        )
        return found

    def _model(self, poisoned: PoisonedClips, seed: int) -> InstrumentedModel:
        if self.kept is None:
            return self._trained(poisoned, seed)
        identity = self._identity(poisoned, seed)
        return kept_model(
            self.kept / f"{identity[:16]}.safetensors",
            identity,
            blank=lambda: self._blank(seed),
            train=lambda: self._trained(poisoned, seed),
        )

    def _blank(self, seed: int) -> InstrumentedModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = SmallVgg(self.width, self.train.pixels.shape[1])
            head = nn.Linear(network.embedding_dim, len(self.train.classes))
        return image_model(network, head, self.train.classes)

    def _trained(self, poisoned: PoisonedClips, seed: int) -> InstrumentedModel:
        data = replace(self.train, pixels=poisoned.clips.samples, labels=poisoned.clips.labels)
        return train_images(
            self._blank(seed),
            data,
            self.training,
            seed=seed,
            progress=lambda epoch, loss, right: self.progress(
                f"epoch {epoch + 1}: loss {loss:.3f}, {right:.3f}"
            ),
        )

    def _measured(
        self, model: InstrumentedModel, poisoned: PoisonedClips, seed: int
    ) -> MeasuredSet:
        def measure() -> MeasuredSet:
            return measure_set(model, poisoned.clips.samples, self.judging, seed=seed)

        if self.kept is None:
            return measure()
        plan = json.dumps(self.judging.measuring, sort_keys=True)
        identity = hashlib.sha256((plan + self._identity(poisoned, seed)).encode()).hexdigest()
        return MeasuredSet.kept(self.kept / f"{identity[:16]}.measured", identity, measure)

    def _identity(self, poisoned: PoisonedClips, seed: int) -> str:
        return identity_of([seed, self.width, asdict(self.training)], poisoned)


def _share(hits: torch.Tensor, owners: tuple[str, ...], seed: int) -> dict[str, float]:
    return proportion(np.asarray(hits.numpy()), owners, seed=seed).to_json()
