"""Measure how the detector that is shipped with a model of images judges changed images."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nip_audio.attacks.spatial import Spatial, rotate_and_move
from nip_audio.audio.manifest import Recording
from nip_audio.core.seeds import seed_of
from nip_audio.errors import StateError
from nip_audio.evaluation.paired_auroc import Scored, mean_auroc
from nip_audio.evaluation.statistics import proportion
from nip_audio.image.adapter import ImageAdapter, to_8_bits
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.images import Images
from studies.images.systems import AttackedPictures, ImageSystem

__all__ = ["RATES", "ShippedDetector", "moved_at_random"]

RATES = (0.05, 0.01)
"""False-positive rates at which images are flagged."""


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

    def result(self, pictures: AttackedPictures) -> dict[str, Any]:
        """Measure detection among clean images: AUROC, and shares flagged."""
        who = tuple(f"t{i}" for i in pictures.rows.tolist())
        distances, base = self._distances(pictures.pixels), self._base
        owners = tuple(f"t{i}" for i in range(len(base)))
        seed = self.system.seed
        pair = (Scored(distances, who), Scored(base, owners))
        return {
            "pictures": len(distances),
            "clean": len(base),
            "auroc": mean_auroc([pair], seed=seed, rounds=self.rounds).to_json(),
            **{f"at_{r:g}": self._flagged(distances, who, r) for r in RATES},
            "false_positives": {f"{r:g}": self._flagged(base, owners, r) for r in RATES},
        }

    @cached_property
    def _calibration(self) -> Calibration:
        path = self.system.pretrained.card.calibration_path
        return Calibration.load(Path(str(path)), model_id=self.system.identity)

    @cached_property
    def _base(self) -> NDArray[np.float64]:
        return self._distances(self.system.test.pixels[: self.clean])

    def _distances(self, pixels: Tensor) -> NDArray[np.float64]:
        pretrained, known = self.system.pretrained, self._calibration
        kind = Images(ImageAdapter(*pretrained.card.image_shape))
        found = []
        with tempfile.TemporaryDirectory() as folder:
            for number, picture in enumerate(pixels):
                path = Path(folder) / f"{number}.png"
                kind.reader.save(picture, path)
                item = kind.reader.read(Recording(path.name, path))
                measured = kind.measure(pretrained, item, known.config, seed=self.system.seed)
                found.append(known.distance(measured))
        return np.array(found)

    def _flagged(
        self, distances: NDArray[np.float64], who: Sequence[str], rate: float
    ) -> dict[str, float]:
        limit = self._calibration.threshold(rate)
        return proportion(distances > limit, who, seed=self.system.seed).to_json()


def moved_at_random(system: ImageSystem, attack: Spatial, *, items: int) -> AttackedPictures:
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
    return AttackedPictures(pixels, rows, system.named(pixels) != system.test.labels[rows], 0.0)
