"""Evaluate models of images: their roles of data, and attacked images with 8-bit values."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from nip_audio.attacks.base import Attack
from nip_audio.attacks.objectives import Identification
from nip_audio.attacks.registry import make_attack
from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.seeds import seed_of
from nip_audio.core.state import write_atomic
from nip_audio.errors import InputError
from nip_audio.image.adapter import to_8_bits
from nip_audio.image.datasets import ImageSet, load_images
from nip_audio.models.pretrained import PretrainedModel, load_pretrained

__all__ = ["AttackedPictures", "ImageAttackPlan", "ImageSystem", "image_system"]

_BATCH = 256


@dataclass(frozen=True)
class ImageAttackPlan:
    """An attack and its settings.

    Attributes:
        attack: Name of the attack in the registry.
        eps: Strengths ε, one set of images each; empty for an attack without a strength.
        settings: Other settings of the attack by name.
        items: Largest number of images to attack.
        batch: Images per batch; part of the recipe, because a batch shares its random numbers.
    """

    attack: str
    eps: tuple[float, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    items: int = 200
    batch: int = 50

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> ImageAttackPlan:
        """Read a plan; strengths may be fractions such as 8/255."""
        values = dict(data)
        values["eps"] = tuple(_number(e) for e in values.get("eps", ()))
        return ImageAttackPlan(**values)

    def attacks(self) -> list[tuple[str, Attack]]:
        """Return each attack with its name for tables."""
        if not self.eps:
            made = make_attack(self.attack, level="input", settings=self.settings)
            return [(self.attack, made)]
        return [
            (
                f"{self.attack} {e:.4g}",
                make_attack(self.attack, eps=e, level="input", settings=self.settings),
            )
            for e in self.eps
        ]


def _number(value: object) -> float:
    above, _, below = str(value).partition("/")
    return float(above) / float(below or 1)


@dataclass(frozen=True)
class AttackedPictures:
    """Images after an attack.

    Attributes:
        pixels: (n, C, H, W) pixels in [0, 1], rounded to 8-bit values.
        rows: (n,) indices of the images in the attacked role.
        fooled: (n,) whether the attacked model misclassifies the rounded image.
        seconds: Seconds per image.
    """

    pixels: Tensor
    rows: Tensor
    fooled: Tensor
    seconds: float

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.pixels)

    @property
    def fooling(self) -> AttackedPictures:
        """Images that fool the attacked model."""
        return self.keep(self.fooled)

    def keep(self, kept: Tensor) -> AttackedPictures:
        """Select images by index or mask."""
        return AttackedPictures(self.pixels[kept], self.rows[kept], self.fooled[kept], self.seconds)


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

    def named(self, pixels: Tensor, model: InstrumentedModel | None = None) -> Tensor:
        """Return the predicted class of each image, (n,), by the undefended model by default."""
        asked = self.model if model is None else model
        return torch.cat([asked.predict(Batch(part)) for part in torch.split(pixels, _BATCH)])

    @cached_property
    def correct_rows(self) -> Tensor:
        """Rows of ``test`` that the undefended model classifies correctly."""
        return torch.nonzero(self.named(self.test.pixels) == self.test.labels)[:, 0]

    @cached_property
    def correct_calibrate_rows(self) -> Tensor:
        """Rows of ``calibrate`` that the undefended model classifies correctly."""
        return torch.nonzero(self.named(self.calibrate.pixels) == self.calibrate.labels)[:, 0]

    def attacked(
        self,
        plan: ImageAttackPlan,
        attack: Attack,
        *,
        calibrate: bool = False,
        model: InstrumentedModel | None = None,
        knows: Mapping[str, Any] | None = None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> AttackedPictures:
        """Attack the first correctly classified images of a role, or read kept results.

        Args:
            plan: Plan with the number of images and the batch size.
            attack: Attack with its settings.
            calibrate: Whether to attack ``calibrate`` instead of ``test``, as a defender may do.
            model: Model that the attacker knows; the undefended model by default.
            knows: Everything that distinguishes ``model`` from the undefended model, as JSON
                values, so that results against another model are not read.
            progress: Called with the number of images done.
        """
        role = self.calibrate if calibrate else self.test
        rows = (self.correct_calibrate_rows if calibrate else self.correct_rows)[: plan.items]
        if len(rows) == 0:
            raise InputError(
                f"{self.name} classifies no image of {role.name} correctly, so there is nothing to "
                "attack; use the model's own data set"
            )
        facts = {
            "model": self.identity,
            "attack": attack.settings(),
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
            pixels, seconds = self._attack(role, rows, plan, attack, model, key, progress)
            self.folder.mkdir(parents=True, exist_ok=True)
            levels = (pixels * 255).round().to(torch.uint8)
            tensors = {"levels": levels, "seconds": torch.tensor(seconds, dtype=torch.float64)}
            write_atomic(path, save(tensors), force=True)
        fooled = self.named(pixels, model) != role.labels[rows]
        return AttackedPictures(pixels, rows, fooled, seconds)

    def _attack(
        self,
        role: ImageSet,
        rows: Tensor,
        plan: ImageAttackPlan,
        attack: Attack,
        model: InstrumentedModel | None,
        key: str,
        progress: Callable[[int], None],
    ) -> tuple[Tensor, float]:
        made = []
        started = time.process_time()
        for number, part in enumerate(torch.split(rows, plan.batch)):
            objective = Identification(model or self.model, role.labels[part])
            generator = torch.Generator().manual_seed(seed_of(self.seed, key, number))
            result = attack(objective, Batch(role.pixels[part]), generator=generator)
            made.append(to_8_bits(result.batch.x))
            progress(sum(map(len, made)))
        return torch.cat(made), (time.process_time() - started) / len(rows)


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
    _, rows, columns = pretrained.card.image_shape
    split = int(pretrained.card.data["training"].get("split_seed", 0))
    calibrate = load_images(data, "calibrate", folder=data_folder, seed=split)
    test = load_images(data, "test", folder=data_folder, seed=split)
    if test.classes != pretrained.card.labels:
        raise InputError(
            f"the {len(pretrained.card.labels)} classes of {pretrained.card.name} are not the "
            f"{len(test.classes)} of {data}; use the model's own data set"
        )
    calibrate, test = (part.resized(rows, columns) for part in (calibrate, test))
    return ImageSystem(pretrained, calibrate, test, folder=folder, seed=seed)
