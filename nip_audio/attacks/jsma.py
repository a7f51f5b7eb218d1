"""JSMA by ART: few values of a spectrogram, changed much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from nip_audio.attacks._art import Goal, attack_items, evasion, seeded_globals
from nip_audio.attacks.base import Attack, Norm, System
from nip_audio.errors import AttackError

__all__ = ["Jsma"]


@dataclass(frozen=True)
class Jsma(Attack):
    """Jacobian-based saliency map attack (Papernot et al. 2016).

    Each step raises the two values to which the attacker's margin is most sensitive. It stops at
    the first example that fools; where none does, the item stays as it is.

    Deviation: the saliency is the gradient of the margin between the class in question and its
    nearest rival; ART's is that of a target's logit alone, drawn at random if there is none.

    Attributes:
        theta: Change of a value in a step, in units of the input; below 0 values are lowered.
        gamma: Share of values that may change. A step costs a gradient and changes two.

    Raises:
        AttackError: If a setting makes no sense.
    """

    theta: float = 1.0
    gamma: float = 0.05

    white_box: ClassVar[bool] = True
    norm: ClassVar[Norm] = "l0"

    def __post_init__(self) -> None:
        """Check."""
        if not 0 < abs(self.theta) <= 1 or not 0 < self.gamma <= 1:
            raise AttackError(
                f"theta is {self.theta} and gamma {self.gamma}, expected theta in [-1, 1] but not "
                "0, in units of the input, and gamma, a share of its values, in (0, 1]"
            )

    @property
    def name(self) -> str:
        """Name in the registry."""
        return "jsma"

    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        attacks = evasion()

        def attack(goal: Goal) -> None:
            attacks.SaliencyMapMethod(
                goal.classifier(), theta=self.theta, gamma=self.gamma, verbose=False
            ).generate(goal.x, np.array([[0.0, 1.0]]))

        with seeded_globals(generator):
            return attack_items(system, attack)
