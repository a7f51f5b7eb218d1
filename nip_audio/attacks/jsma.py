"""JSMA, the Jacobian-based saliency map attack: changes few values by a large amount.

Implemented by the Adversarial Robustness Toolbox (ART).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from nip_audio.attacks._art import ItemGoal, attack_items, evasion, seeded_globals
from nip_audio.attacks.base import Attack, Norm, System
from nip_audio.core.adapter import Batch, Bounds
from nip_audio.errors import AttackError

__all__ = ["Jsma"]


@dataclass(frozen=True)
class Jsma(Attack):
    """Jacobian-based saliency map attack (Papernot et al. 2016).

    Each step raises the two values to which the attacker's margin is most sensitive. The attack
    stops at the first successful example; an item without one is returned unchanged.

    Where the gradient at the input is zero, the first pair is drawn at random, and counts towards
    ``gamma``.

    Deviation: the saliency is the gradient of the margin between the attacked class and its nearest
    rival; ART uses the logit of the target alone, and draws a target at random if there is none.

    Attributes:
        theta: Change of a value per step, in units of the input; a negative one lowers values.
        gamma: Share of values that may change. A step costs one gradient and changes two values.

    Raises:
        AttackError: If a setting is out of range.
    """

    theta: float = 1.0
    gamma: float = 0.05

    white_box: ClassVar[bool] = True
    norm: ClassVar[Norm] = "l0"

    def __post_init__(self) -> None:
        """Validate the settings."""
        if not 0 < abs(self.theta) <= 1 or not 0 < self.gamma <= 1:
            raise AttackError(
                f"theta is {self.theta} and gamma {self.gamma}, expected theta in [-1, 1] but not "
                "0, in units of the input, and gamma, a share of its values, in (0, 1]"
            )

    @property
    def name(self) -> str:
        """Name in the registry."""
        return "jsma"

    @property
    def starts_at_input(self) -> bool:
        """True: the first pair of values is chosen by the gradient at the input."""
        return True

    def _first_step(
        self, batch: Batch, bounds: Bounds, generator: torch.Generator
    ) -> tuple[Attack, Tensor]:
        """Change two random values by theta, because an L0 attack must not move every value.

        Raises:
            AttackError: If gamma allows no changes beyond these two.
        """
        items = [batch.item(index) for index in range(len(batch))]
        gamma = self.gamma - 2 / min(item.x.numel() for item in items)
        if gamma <= 0:
            raise AttackError(
                f"gamma is {self.gamma}, which allows jsma to change two values only, and both are "
                "drawn at random because the gradient at this input is zero; raise gamma"
            )
        x = batch.masked().clone()
        for row, item in zip(x, items, strict=True):
            part = row[..., : item.x.shape[-1]]
            moved = bounds.clip(part + self.theta)
            drawn = torch.rand(part.shape, generator=generator).to(part)
            least = drawn.masked_fill(moved == part, -1.0).flatten().topk(2).values[-1]
            part.copy_(torch.where(drawn >= least.clamp_min(0.0), moved, part))
        return replace(self, gamma=gamma), x

    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        attacks = evasion()

        def attack(goal: ItemGoal) -> None:
            attacks.SaliencyMapMethod(
                goal.classifier(), theta=self.theta, gamma=self.gamma, verbose=False
            ).generate(goal.x, np.array([[0.0, 1.0]]))

        with seeded_globals(generator):
            return attack_items(system, attack)
