"""Measure purifiers in front of a remote classifier that only returns labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nip_audio.attacks.base import Attack
from nip_audio.attacks.objectives import Identification
from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.seeds import seed_of
from nip_audio.errors import InputError
from nip_audio.evaluation.statistics import proportion
from nip_audio.image.adapter import to_8_bits
from nip_audio.purifiers.base import Purifier

__all__ = ["RemoteStudy", "transferred"]

_BATCH = 100


@dataclass(frozen=True)
class RemoteStudy:
    """Purifiers in front of one remote classifier.

    A purifier gets images only, neither labels nor originals. Its output is rounded to 8 bits, as
    it would be sent.

    Attributes:
        answer: Function that returns the classes of a batch, (B,), like ``RemoteClassifier``.
        purifiers: Purifiers by name.
        seed: Seed of their random draws and of the bootstrap.
        progress: Called with a description of each step.

    Raises:
        InputError: If a purifier also has a part before it, which cannot be applied here.
    """

    answer: Callable[[Batch], Tensor]
    purifiers: Mapping[str, Purifier]
    seed: int
    progress: Callable[[str], None] = lambda what: None

    def __post_init__(self) -> None:
        """Check that no purifier has a part before it."""
        for name, purifier in self.purifiers.items():
            if purifier.before is not None:
                raise InputError(
                    f"{name} has a part before it, which cannot be applied here; leave it out"
                )

    def named(self, pixels: Tensor, purifier: Purifier | None = None) -> Tensor:
        """Return the remote classes of images (n, C, H, W), purified if asked, as (n,)."""
        generator = torch.Generator().manual_seed(seed_of(self.seed, "defence"))
        answers = []
        for part in torch.split(pixels, _BATCH):
            batch = Batch(part)
            if purifier is not None:
                with torch.no_grad():
                    batch = Batch(to_8_bits(purifier.purify(batch, generator=generator).x))
            answers.append(self.answer(batch))
        return torch.cat(answers)

    def benign(self, pixels: Tensor, truth: Tensor) -> dict[str, Any]:
        """Return the accuracy on unattacked images against ``truth``, by defence and undefended."""
        who = tuple(map(str, range(len(pixels))))
        self.progress("benign")
        return {
            "pictures": len(pixels),
            "undefended": self._share(self.named(pixels) == truth, who),
            "behind": {
                name: self._share(self.named(pixels, purifier) == truth, who)
                for name, purifier in self.purifiers.items()
            },
        }

    def saved(self, attacked: Tensor, rows: Tensor, truth: Tensor) -> dict[str, Any]:
        """Return the defence success rate (DSR): share of the successful attacks recovered.

        Args:
            attacked: (n, C, H, W) images with 8-bit values.
            rows: (n,) indices of the original images, for the intervals.
            truth: (n,) correct classes.

        Returns:
            The numbers of attacked and of successful images, and the DSR by defence if there is any
            success.
        """
        fooled = self.named(attacked) != truth
        who = tuple(map(str, rows.tolist()))
        found: dict[str, Any] = {
            "attempts": len(attacked),
            "examples": int(fooled.sum()),
            "success": self._share(fooled, who),
        }
        if not bool(fooled.any()):
            return found
        kept = tuple(map(str, rows[fooled].tolist()))
        found["dsr"] = {
            name: self._share(self.named(attacked[fooled], purifier) == truth[fooled], kept)
            for name, purifier in self.purifiers.items()
        }
        return found

    def _share(self, hits: Tensor, who: tuple[str, ...]) -> dict[str, float]:
        values: NDArray[np.bool_] = hits.numpy()
        return proportion(values, who, seed=self.seed).to_json()


def transferred(
    model: InstrumentedModel, pixels: Tensor, truth: Tensor, attack: Attack, *, seed: int
) -> Tensor:
    """Attack a substitute on images (n, C, H, W); the results may fool the remote classifier too.

    Returns:
        Attacked images of the same shape, rounded to 8 bits.
    """
    made = []
    for number, rows in enumerate(torch.split(torch.arange(len(pixels)), _BATCH)):
        generator = torch.Generator().manual_seed(seed_of(seed, attack.name, number))
        objective = Identification(model, truth[rows])
        made.append(to_8_bits(attack(objective, Batch(pixels[rows]), generator=generator).batch.x))
    return torch.cat(made)
