"""The one-pixel attack, implemented by the Adversarial Robustness Toolbox (ART)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nip_audio.attacks._art import ItemGoal, attack_items, evasion, seeded_globals
from nip_audio.attacks.base import Attack, Norm, System
from nip_audio.attacks.square import require_spectrogram
from nip_audio.errors import AttackError

__all__ = ["OnePixel"]


@dataclass(frozen=True)
class OnePixel(Attack):
    """Changes one value of a spectrogram, or one pixel of an image (Su et al. 2019).

    Differential evolution searches the place and the value, one of 256 levels; all channels of a
    pixel may change. An item without a successful change is returned unchanged.

    Attributes:
        steps: Number of generations, of about 400 candidates each.
        queries: Largest number of queries per item.

    Raises:
        AttackError: If a setting is out of range, or if the input is no spectrogram or image.
    """

    steps: int = 10
    queries: int = 4000

    white_box: ClassVar[bool] = False
    norm: ClassVar[Norm] = "l0"

    def __post_init__(self) -> None:
        """Validate the settings."""
        if self.steps < 1 or self.queries < 1:
            raise AttackError(
                f"steps is {self.steps} and queries {self.queries}, expected ≥ 1 each"
            )

    @property
    def name(self) -> str:
        """Name in the registry."""
        return "one-pixel"

    @property
    def query_limit(self) -> int:
        """Largest number of queries per item."""
        return self.queries

    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        require_spectrogram(system, self.name)
        attacks = evasion()

        def attack(goal: ItemGoal) -> None:
            # without labels ART takes the decision, class 0; with two classes it refuses labels
            attacks.PixelAttack(
                goal.classifier(), th=1, es=1, max_iter=self.steps, verbose=False
            ).generate(goal.x)

        with seeded_globals(generator):
            return _largest_change_only(attack_items(system, attack), system.batch.x)


def _largest_change_only(x: Tensor, clean: Tensor) -> Tensor:
    """Keep only the largest change per item, because ART's scale of 0 … 255 rounds every value.

    In a batch of shape (B, C, H, W), all channels of a pixel are kept together.
    """
    change = (x - clean).abs()
    places = change.sum(dim=1, keepdim=True) if x.dim() == 4 else change
    flat = places.flatten(1)
    largest = torch.zeros_like(flat, dtype=torch.bool)
    largest.scatter_(1, flat.argmax(dim=1, keepdim=True), value=True)
    return torch.where(largest.reshape(places.shape), x, clean)
