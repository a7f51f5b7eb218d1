"""What purifiers do for a classifier that only answers labels: everything goes over its URL."""

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
from nip_audio.errors import InputError
from nip_audio.evaluation.seeds import seed_of
from nip_audio.evaluation.statistics import proportion
from nip_audio.image.adapter import to_8_bits
from nip_audio.purifiers.base import Purifier

__all__ = ["RemoteStudy", "transferred"]

_BATCH = 100


@dataclass(frozen=True)
class RemoteStudy:
    """Purifiers before one remote classifier.

    A purifier sees pictures alone, neither labels nor originals; what it makes is rounded to 8
    bits, as it is sent.

    Attributes:
        answer: Names the classes of a batch, as ``RemoteClassifier`` does: (B,).
        purifiers: By name.
        seed: Of their draws, and of intervals.
        progress: Called with what is being done.

    Raises:
        InputError: If a purifier changes raw input before it changes model input: nothing but raw
            pictures can be sent.
    """

    answer: Callable[[Batch], Tensor]
    purifiers: Mapping[str, Purifier]
    seed: int
    progress: Callable[[str], None] = lambda what: None

    def __post_init__(self) -> None:
        """Check."""
        for name, purifier in self.purifiers.items():
            if purifier.before is not None:
                raise InputError(f"{name} has a part before it, which is not applied here; omit it")

    def named(self, pixels: Tensor, purifier: Purifier | None = None) -> Tensor:
        """Ask what pictures (n, C, H, W) show, behind a purifier if there is one: (n,)."""
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
        """Share of unattacked pictures that is named ``truth``, by defence, and with none."""
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
        """Return the share of the fooling images that is classified correctly again.

        Args:
            attacked: (n, C, H, W) pictures of 8 bits.
            rows: (n,) which pictures they were, for the intervals.
            truth: (n,) what they are to be named.

        Returns:
            How many were tried, how many fool, and the DSR by defence, where any fool.
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
    """Attack a substitute with pictures (n, C, H, W); what is made may fool the remote one too.

    Returns:
        As ``pixels``, rounded to 8 bits.
    """
    made = []
    for number, rows in enumerate(torch.split(torch.arange(len(pixels)), _BATCH)):
        generator = torch.Generator().manual_seed(seed_of(seed, attack.name, number))
        objective = Identification(model, truth[rows])
        made.append(to_8_bits(attack(objective, Batch(pixels[rows]), generator=generator).batch.x))
    return torch.cat(made)
