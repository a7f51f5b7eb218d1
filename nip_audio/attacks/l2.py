"""PGD bounded in the Euclidean (L2) norm, implemented by Foolbox."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nip_audio.attacks._foolbox import criterion_of, foolbox, wrapped
from nip_audio.attacks.base import LARGEST_SENSIBLE_EPS, Attack, Norm, System
from nip_audio.core.adapter import Bounds
from nip_audio.errors import AttackError

__all__ = ["L2Pgd"]


@dataclass(frozen=True)
class L2Pgd(Attack):
    """Steps along the gradient of the loss from a random point in an L2 ball (Madry et al. 2018).

    Attributes:
        eps: Largest Euclidean norm of the change of a whole item, in units of the input. This is
            not the change of one value: 6400/32768 on 2 s at 16 kHz is 0.0011 rms.
        steps: Number of steps.
        step_share: Length of a step as a share of ε.

    Raises:
        AttackError: If a setting is out of range.
    """

    eps: float
    steps: int = 10
    step_share: float = 0.2

    white_box: ClassVar[bool] = True
    norm: ClassVar[Norm] = "l2"

    def __post_init__(self) -> None:
        """Validate the settings."""
        if not 0 < self.eps < math.inf:
            raise AttackError(
                f"eps is {self.eps}, expected more than 0: the Euclidean norm of the whole change, "
                "in units of the input; try 6400/32768 for a waveform"
            )
        if self.steps < 1 or not 0 < self.step_share < math.inf:
            raise AttackError(
                f"steps is {self.steps} and step_share {self.step_share}, expected ≥ 1 and > 0"
            )

    @property
    def name(self) -> str:
        """Name in the registry."""
        return "pgd-l2"

    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        most = LARGEST_SENSIBLE_EPS * system.batch.x[0].numel() ** 0.5
        if self.eps > most:
            raise AttackError(
                f"eps is {self.eps}, expected at most {most:.3g} for items of this size, an rms of "
                f"{LARGEST_SENSIBLE_EPS}; give eps in units where full scale is 1"
            )
        attack = foolbox().attacks.L2ProjectedGradientDescentAttack(
            rel_stepsize=self.step_share, steps=self.steps, random_start=True
        )
        x: Tensor = attack.run(
            wrapped(system), system.batch.x, criterion_of(system), epsilon=self.eps
        )
        return x

    def _keep_promise(self, x: Tensor, clean: Tensor, bounds: Bounds) -> None:
        super()._keep_promise(x, clean, bounds)
        longest = float((x - clean).flatten(1).norm(dim=1).max())
        if longest > self.eps * (1 + 1e-4) + 1e-7:
            raise AttackError(
                f"{self.name} made a change of norm {longest:.3g}, more than eps = {self.eps}; "
                "report this as a defect"
            )
