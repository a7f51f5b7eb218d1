"""Measure defences, and the detector shipped with a model, on rotated and moved images."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nip_audio.attacks.spatial import Spatial, rotate_and_move
from nip_audio.audio.manifest import Recording
from nip_audio.core.metrics import Interval
from nip_audio.core.seeds import seed_of
from nip_audio.errors import StateError
from nip_audio.evaluation.detector_judges import RATES
from nip_audio.evaluation.paired_auroc import Scored, mean_auroc
from nip_audio.image.adapter import ImageAdapter, to_8_bits
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.images import Images
from studies._lib.attacks import attacks_of, image_attack
from studies._lib.shares import share_of
from studies.images.purification import defence_study
from studies.images.results import Detected, MovedAtRandom
from studies.images.setup import Setup
from studies.images.systems import AttackedImages, ImageSystem

__all__ = ["ShippedDetector", "moved_at_random", "spatial"]


@dataclass(frozen=True)
class ShippedDetector:
    """A model's own calibration, judging PNG files as ``nip-audio detect`` does.

    Attributes:
        system: Model and its roles; the model's card names the calibration.
        clean: Largest number of unattacked ``test`` images to judge.
        rounds: Number of bootstrap samples.

    Raises:
        StateError: If no calibration is shipped with the model.
    """

    system: ImageSystem
    clean: int = 300
    rounds: int = 300

    def __post_init__(self) -> None:
        """Check that the model has a calibration."""
        if self.system.pretrained.card.calibration_path is None:
            raise StateError(
                f"{self.system.name} has no calibration beside it; make one with nip-audio "
                "calibrate"
            )

    def result(self, images: AttackedImages) -> Detected:
        """Measure detection among clean images: AUROC, and shares flagged."""
        attacked = Scored(self._distances(images.pixels), _names(images.rows.tolist()))
        clean = Scored(self._base, _names(range(len(self._base))))
        seed = self.system.seed
        return Detected(
            images=len(images),
            clean=len(self._base),
            auroc=mean_auroc([(attacked, clean)], seed=seed, rounds=self.rounds),
            flagged=self._flagged(attacked),
            false_positives=self._flagged(clean),
        )

    @cached_property
    def _calibration(self) -> Calibration:
        path = self.system.pretrained.card.calibration_path
        return Calibration.load(Path(str(path)), model_id=self.system.identity)

    @cached_property
    def _base(self) -> NDArray[np.float64]:
        return self._distances(self.system.test.pixels[: self.clean])

    def _distances(self, pixels: Tensor) -> NDArray[np.float64]:
        pretrained, known = self.system.pretrained, self._calibration.detector
        kind = Images(ImageAdapter(*pretrained.card.image_shape))
        found = []
        with tempfile.TemporaryDirectory() as folder:
            for number, image in enumerate(pixels):
                path = Path(folder) / f"{number}.png"
                kind.reader.save(image, path)
                item = kind.reader.read(Recording(path.name, path))
                measured = kind.measure(pretrained, item, known.probe, seed=self.system.seed)
                found.append(known.distance(measured))
        return np.array(found)

    def _flagged(self, found: Scored) -> dict[str, Interval]:
        limits = {f"{rate:g}": self._calibration.threshold(rate) for rate in RATES}
        return {
            rate: share_of(found.scores > limit, found.speakers, seed=self.system.seed)
            for rate, limit in limits.items()
        }


def _names(rows: Iterable[int]) -> tuple[str, ...]:
    return tuple(f"t{row}" for row in rows)


def moved_at_random(system: ImageSystem, attack: Spatial, *, items: int) -> AttackedImages:
    """Rotate and move images at random, as a control of spatial attacks.

    Args:
        system: System whose first correctly classified ``test`` images are used.
        attack: Attack whose largest rotation and translation bound the uniform random draws.
        items: Largest number of images.

    Returns:
        Images with 8-bit values; ``fooled`` tells which of them are misclassified.
    """
    rows = system.correct_rows[:items]
    generator = torch.Generator().manual_seed(seed_of(system.seed, "moved at random"))
    drawn = 2 * torch.rand(len(rows), 3, generator=generator) - 1
    most = torch.tensor([attack.degrees, attack.pixels, attack.pixels])
    made = [
        rotate_and_move(
            system.test.pixels[row][None],
            degrees=angle,
            down=down,
            right=right,
            bounds=system.model.bounds,
        )
        for row, (angle, down, right) in zip(rows.tolist(), (drawn * most).tolist(), strict=True)
    ]
    pixels = to_8_bits(torch.cat(made))
    return AttackedImages(pixels, rows, system.predict(pixels) != system.test.labels[rows], 0.0)


def spatial(setup: Setup) -> None:
    """Measure defences and the shipped detector against rotated and moved images."""
    study = defence_study(setup)
    system = study.system
    plans = [image_attack(one) for one in setup.chosen["spatial"]]
    found = study.results(plans)
    attacks = {
        f"spatial, {attack.keep}": (plan, attack)
        for plan in plans
        for _, attack in attacks_of(plan)
        if isinstance(attack, Spatial)
    }
    plan, attack = next(iter(attacks.values()))
    control = moved_at_random(system, attack, items=plan.items)
    accuracy = share_of(~control.fooled, control.rows, seed=system.seed)
    found = replace(found, at_random=MovedAtRandom(len(control), accuracy))
    if system.pretrained.card.calibration_path is not None:
        detector = ShippedDetector(system, setup.chosen["detector_clean"])
        sets = {name: system.attacked(*one).fooling for name, one in attacks.items()}
        sets["moved at random, correctly classified"] = control.keep(~control.fooled)
        found = replace(found, detection={n: detector.result(one) for n, one in sets.items()})
    setup.keep(found)
