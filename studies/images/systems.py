"""Evaluate models of images: their roles of data, and attacked images with 8-bit values."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from nip_audio.attacks.base import Attack
from nip_audio.attacks.objectives import Identification
from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.seeds import seed_of
from nip_audio.core.state import write_atomic
from nip_audio.errors import InputError
from nip_audio.evaluation.config import AttackPlan
from nip_audio.image.adapter import to_8_bits
from nip_audio.image.datasets import ImageSet, Role, load_images
from nip_audio.models.cards import ModelCard
from nip_audio.models.pretrained import PretrainedModel, load_pretrained

__all__ = ["AttackedImages", "ImageSystem", "attack_images", "image_system", "load_role"]

_BATCH = 256
_TESTED: tuple[Role, ...] = ("calibrate", "test")


@dataclass(frozen=True)
class AttackedImages:
    """Images after an attack.

    Attributes:
        pixels: (n, C, H, W) pixels in [0, 1], rounded to 8-bit values.
        rows: (n,) indices of the images in the attacked role.
        fooled: (n,) whether the attacked model misclassifies the rounded image.
        seconds: Seconds per image; None if it was not measured.
    """

    pixels: Tensor
    rows: Tensor
    fooled: Tensor
    seconds: float | None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.pixels)

    @property
    def fooling(self) -> AttackedImages:
        """Images that fool the attacked model."""
        return self.keep(self.fooled)

    def keep(self, kept: Tensor) -> AttackedImages:
        """Select images by index or mask."""
        return AttackedImages(self.pixels[kept], self.rows[kept], self.fooled[kept], self.seconds)


@dataclass(frozen=True)
class ImageSystem:
    """A model of images and its roles of data.

    Attributes:
        pretrained: Card and network of the model.
        calibrate: Images that detectors are fitted on.
        test: Images that everything is tested on.
        folder: Folder where attacked images are kept.
        seed: Seed of the attacks.
    """

    pretrained: PretrainedModel
    calibrate: ImageSet
    test: ImageSet
    folder: Path
    seed: int

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.pretrained.card.name

    @property
    def model(self) -> InstrumentedModel:
        """Undefended model."""
        return self.pretrained.model

    @property
    def identity(self) -> str:
        """Identity of the model."""
        return self.pretrained.model_id

    def predict(self, pixels: Tensor, model: InstrumentedModel | None = None) -> Tensor:
        """Return the predicted class of each image, (n,), by the undefended model by default."""
        asked = self.model if model is None else model
        return torch.cat([asked.predict(Batch(part)) for part in torch.split(pixels, _BATCH)])

    @cached_property
    def correct_rows(self) -> Tensor:
        """Rows of ``test`` that the undefended model classifies correctly."""
        return self._correct(self.test)

    def _correct(self, role: ImageSet) -> Tensor:
        return torch.nonzero(self.predict(role.pixels) == role.labels)[:, 0]

    def attacked(
        self,
        plan: AttackPlan,
        attack: Attack,
        *,
        calibrate: bool = False,
        model: InstrumentedModel | None = None,
        knows: Mapping[str, Any] | None = None,
    ) -> AttackedImages:
        """Attack the first correctly classified images of a role, or read kept results.

        Args:
            plan: Plan with the number of images and the batch size.
            attack: Attack with its settings.
            calibrate: Whether to attack ``calibrate`` instead of ``test``, as a defender may do.
            model: Model that the attacker knows; the undefended model by default.
            knows: Everything that distinguishes ``model`` from the undefended model, as JSON
                values, so that results against another model are not read.
        """
        role = self.calibrate if calibrate else self.test
        rows = (self._correct(role) if calibrate else self.correct_rows)[: plan.items]
        if len(rows) == 0:
            raise InputError(
                f"{self.name} classifies no image of {role.name} correctly, so there is nothing to "
                "attack; use the model's own data set"
            )
        facts = {
            "model": self.identity,
            "attack": attack.settings(),
            # the attacks' seeds depend on this name
            "pictures": hashlib.sha256(role.pixels[rows].numpy().tobytes()).hexdigest(),
            "seed": self.seed,
            "batch": plan.batch,
            "knows": knows or "",
        }
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        path = self.folder / f"{self.name}-{attack.name}-{key[:16]}.safetensors"
        if path.exists():
            kept = load(path.read_bytes())
            pixels, seconds = kept["levels"].float() / 255, float(kept["seconds"])
        else:
            pixels, seconds = self._attack(role, rows, plan, attack, model, key)
            self.folder.mkdir(parents=True, exist_ok=True)
            levels = (pixels * 255).round().to(torch.uint8)
            tensors = {"levels": levels, "seconds": torch.tensor(seconds, dtype=torch.float64)}
            write_atomic(path, save(tensors), force=True)
        fooled = self.predict(pixels, model) != role.labels[rows]
        return AttackedImages(pixels, rows, fooled, seconds)

    def _attack(
        self, role: ImageSet, rows: Tensor, plan: AttackPlan, attack: Attack, against: Any, key: str
    ) -> tuple[Tensor, float]:
        started = time.process_time()
        pixels = attack_images(
            against or self.model,
            role.pixels[rows],
            role.labels[rows],
            attack,
            batch=plan.batch,
            generator=lambda number: _seeded(self.seed, key, number),
        )
        return pixels, (time.process_time() - started) / len(rows)


def _seeded(*parts: object) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(*parts))


def attack_images(
    model: InstrumentedModel,
    pixels: Tensor,
    labels: Tensor,
    attack: Attack,
    *,
    batch: int,
    generator: Callable[[int], torch.Generator],
) -> Tensor:
    """Attack images (n, C, H, W) in batches, and round the results to 8 bits.

    Args:
        model: Model that the attacker knows.
        pixels: Images to attack.
        labels: (n,) their classes.
        attack: Attack with its settings.
        batch: Images per batch.
        generator: Returns the random generator of a batch by its number.
    """
    made = []
    for number, rows in enumerate(torch.split(torch.arange(len(pixels)), batch)):
        objective = Identification(model, labels[rows])
        result = attack(objective, Batch(pixels[rows]), generator=generator(number))
        made.append(to_8_bits(result.batch.x))
    return torch.cat(made)


def load_role(card: ModelCard, data: str, role: Role, folder: Path | None) -> ImageSet:
    """Load a role of a data set as the model with this card takes it."""
    _, rows, columns = card.image_shape
    split = int(card.data["training"].get("split_seed", 0))
    return load_images(data, role, folder=folder, seed=split).resized(rows, columns)


def image_system(
    model: str | Path, data: str, *, data_folder: Path | None, folder: Path, seed: int
) -> ImageSystem:
    """Load a model and the roles that it is tested on.

    Args:
        model: Name or directory of the model.
        data: Name of the data set, see ``load_images``.
        data_folder: Folder of the data set.
        folder: Folder where attacked images are kept.
        seed: Seed of the attacks.

    Raises:
        InputError: If the classes of the model are not those of the data set.
    """
    pretrained = load_pretrained(model)
    calibrate, test = (load_role(pretrained.card, data, role, data_folder) for role in _TESTED)
    if test.classes != pretrained.card.labels:
        raise InputError(
            f"the {len(pretrained.card.labels)} classes of {pretrained.card.name} are not the "
            f"{len(test.classes)} of {data}; use the model's own data set"
        )
    return ImageSystem(pretrained, calibrate, test, folder=folder, seed=seed)
