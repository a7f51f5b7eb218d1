"""HopSkipJump: looks for the smallest successful change with decisions only.

Implemented by the Adversarial Robustness Toolbox (ART).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nip_audio.attacks._art import ItemGoal, attack_items, evasion, seeded_globals
from nip_audio.attacks.base import Attack, Norm, System
from nip_audio.errors import AttackError

__all__ = ["HopSkipJump"]

_START_TRIALS = 100
_FIRST_DRAWS = 100
_MOST_DRAWS = 200  # ART holds several arrays of this many inputs at once


@dataclass(frozen=True)
class HopSkipJump(Attack):
    """Walk along the decision boundary towards the item, in L2 (Chen et al. 2020).

    It starts from the first of up to 100 draws of uniform noise that is successful. An item without
    such a draw is returned unchanged; a target among many speakers is seldom reached this way.

    Deviation: at most 200 draws estimate a gradient, to limit memory; in the paper the number keeps
    growing.

    Attributes:
        steps: Number of steps along the boundary.
        queries: Largest number of queries per item; the closest successful example is kept.

    Raises:
        AttackError: If a setting is out of range.
    """

    steps: int = 50
    queries: int = 2000

    white_box: ClassVar[bool] = False
    norm: ClassVar[Norm] = "minimum"

    def __post_init__(self) -> None:
        """Validate the settings."""
        if self.steps < 1 or self.queries < 1:
            raise AttackError(
                f"steps is {self.steps} and queries {self.queries}, expected ≥ 1 each"
            )

    @property
    def name(self) -> str:
        """Name in the registry."""
        return "hopskipjump"

    @property
    def query_limit(self) -> int:
        """Largest number of queries per item; it also ends ART's endless step-size searches."""
        return self.queries

    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        attacks = evasion()

        def attack(goal: ItemGoal) -> None:
            start = _start(goal, generator)
            if start is not None:
                attacks.HopSkipJump(
                    goal.classifier(),
                    max_iter=self.steps,
                    init_eval=_FIRST_DRAWS,
                    max_eval=_MOST_DRAWS,
                    verbose=False,
                ).generate(goal.x, x_adv_init=start)

        with seeded_globals(generator):
            return attack_items(system, attack)


def _start(goal: ItemGoal, generator: torch.Generator) -> NDArray[np.float32] | None:
    """Draw noise until the attack succeeds; ART itself would use a generator that is not seeded."""
    low, high = goal.bounds.low, goal.bounds.high
    for _ in range(_START_TRIALS):
        noise = low + (high - low) * torch.rand(1, *goal.shape, generator=generator)
        goal(noise)
        if goal.done:
            return noise.numpy()
    return None
