"""Poison sets of images, train on them, and test which detectors find the poison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from nip_audio.core.model import InstrumentedModel
from nip_audio.image.datasets import ImageSet, load_images
from nip_audio.image.models.small_vgg import SmallVgg
from nip_audio.training.image_training import ImageTraining, image_model, train_images
from studies._lib.command import tell
from studies.backdoors.image_triggers import IMAGE_TRIGGERS
from studies.backdoors.judging import JudgingPlan
from studies.backdoors.models import NO_TRIGGER, BackdoorCase
from studies.backdoors.poisoning import Clips
from studies.backdoors.study import BackdoorStudy
from studies.images.setup import Setup

__all__ = ["JUDGING", "VggTraining", "backdoors"]

JUDGING = JudgingPlan(layers=("pairs.2",), output_layers=("pairs.1",), small=8 / 255)


@dataclass(frozen=True)
class VggTraining:
    """Training of a small VGG.

    Attributes:
        training: Settings of the training.
        width: Width of the network.
    """

    training: ImageTraining
    width: int = 12

    def blank(self, clips: Clips, seed: int) -> InstrumentedModel:
        """Return an untrained model of the images' classes."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = SmallVgg(self.width, clips.samples.shape[1])
            head = nn.Linear(network.embedding_dim, len(clips.speakers))
        return image_model(network, head, clips.speakers)

    def train(self, clips: Clips, seed: int, progress: Callable[[str], None]) -> InstrumentedModel:
        """Train a model on images."""
        return train_images(
            self.blank(clips, seed),
            ImageSet(clips.samples, clips.labels, clips.speakers, "poisoned"),
            self.training,
            seed=seed,
            progress=lambda epoch, loss, right: progress(
                f"epoch {epoch + 1}: loss {loss:.3f}, {right:.3f}"
            ),
        )


def backdoors(setup: Setup) -> None:
    """Poison, train and judge with every trigger and seed of the plan.

    A system may name fewer ``seeds`` and ``triggers``, and the first ``images`` of each role.
    """
    chosen, side = setup.chosen, setup.plan["size"]
    sets = {}
    for role in ("train", "test"):
        data = load_images(chosen["data"], role, folder=setup.data_folder)
        first = torch.arange(chosen.get("images", {}).get(role, len(data)))
        data = data.rows(first).resized(side, side)
        sets[role] = Clips(data.pixels, data.labels, data.classes)
    out = setup.out / setup.name
    out.mkdir(parents=True, exist_ok=True)
    study = BackdoorStudy(
        sets,
        sets["test"].samples[:100],
        JUDGING,
        out,
        enrolment=False,
        judging_seed=int,
        progress=tell,
    )
    training = VggTraining(ImageTraining.from_hparams(chosen["training"]), chosen["width"])
    found = []
    for seed in chosen.get("seeds", setup.plan["seeds"]):
        for trigger in chosen.get("triggers", (*IMAGE_TRIGGERS, NO_TRIGGER)):
            case = BackdoorCase(trigger, seed, setup.plan["share"], training)
            found.append(study.judge(case))
            setup.keep(found)
