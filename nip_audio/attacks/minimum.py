"""Attacks that look for the smallest successful change: DeepFool and Carlini & Wagner (C&W).

Foolbox implements both.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nip_audio.attacks._foolbox import criterion_of, foolbox, untargeted_criterion, wrapped
from nip_audio.attacks.base import Attack, Norm, System
from nip_audio.errors import AttackError

__all__ = ["CarliniWagner", "DeepFool"]


@dataclass(frozen=True)
class DeepFool(Attack):
    """Steps over the nearest linearised decision boundary (Moosavi-Dezfooli et al. 2016).

    Where the gradient at the input is zero, the attack starts a random step away from it; see
    ``start.rows_to_move``.

    Attributes:
        steps: Largest number of steps.
        candidates: Number of classes whose boundaries are considered, those with the highest
            scores.
        overshoot: Share by which the change exceeds the distance to the boundary.

    Raises:
        AttackError: If a setting is out of range.
    """

    steps: int = 50
    candidates: int = 10
    overshoot: float = 0.02

    white_box: ClassVar[bool] = True
    norm: ClassVar[Norm] = "minimum"

    def __post_init__(self) -> None:
        """Validate the settings."""
        if self.steps < 1 or self.candidates < 2 or self.overshoot < 0:
            raise AttackError(
                f"steps is {self.steps}, candidates {self.candidates} and overshoot "
                f"{self.overshoot}, expected ≥ 1, ≥ 2 and ≥ 0"
            )

    @property
    def name(self) -> str:
        """Name in the registry."""
        return "deepfool"

    @property
    def starts_at_input(self) -> bool:
        """True: the first boundary is linearised at the input."""
        return True

    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        criterion, classes = untargeted_criterion(system, self.name)
        attack = foolbox().attacks.L2DeepFoolAttack(
            steps=self.steps,
            candidates=min(self.candidates, classes),
            overshoot=self.overshoot,
        )
        x: Tensor = attack.run(wrapped(system), system.batch.x, criterion)
        return x


@dataclass(frozen=True)
class CarliniWagner(Attack):
    """Minimises change plus c times the margin, searching c by bisection (Carlini & Wagner 2017).

    The change is measured in the L2 norm; the default settings are those of SpeakerGuard. An item
    on which the attack fails is returned unchanged, and so is one on which the unchanged input
    succeeds already, unless ``confidence`` demands more. Where the gradient at the input is zero,
    the descent starts a random step away from it; see ``start.rows_to_move``.

    Attributes:
        steps: Number of iterations for each value of c.
        binary_search_steps: Number of values of c.
        learning_rate: Learning rate of the optimiser Adam.
        confidence: Margin to reach, in logits.
        initial_const: First value of c.

    Raises:
        AttackError: If a setting is out of range.
    """

    steps: int = 1000
    binary_search_steps: int = 9
    learning_rate: float = 0.001
    confidence: float = 0.0
    initial_const: float = 0.001

    white_box: ClassVar[bool] = True
    norm: ClassVar[Norm] = "minimum"

    def __post_init__(self) -> None:
        """Validate the settings."""
        if (
            min(self.steps, self.binary_search_steps) < 1
            or min(self.learning_rate, self.initial_const) <= 0
            or self.confidence < 0
        ):
            raise AttackError(
                f"C&W got {asdict(self)}, expected steps ≥ 1, rates and constants > 0, confidence "
                "≥ 0"
            )

    @property
    def name(self) -> str:
        """Name in the registry."""
        return "cw"

    @property
    def starts_at_input(self) -> bool:
        """True: the descent starts at the input."""
        return True

    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        attack = foolbox().attacks.L2CarliniWagnerAttack(
            binary_search_steps=self.binary_search_steps,
            steps=self.steps,
            stepsize=self.learning_rate,
            confidence=self.confidence,
            initial_const=self.initial_const,
        )
        clean = system.batch.x
        x: Tensor = attack.run(wrapped(system), clean, criterion_of(system))
        # Foolbox returns zeros for items on which it failed. Silence may change the decision, which
        # would then count as a success of the attack.
        unchanged = x.flatten(1).eq(0).all(dim=1)
        if self.confidence == 0:
            unchanged |= system.fooled(clean)
        return torch.where(unchanged.reshape(-1, *[1] * (x.dim() - 1)), clean, x)
