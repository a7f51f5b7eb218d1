"""Gradient attacks bounded in the L∞ norm: FGSM, BIM, MI-FGSM, PGD and EOT.

These are the fast gradient sign method, the basic iterative method (also with momentum), projected
gradient descent, and expectation over transformation. Foolbox implements the steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nip_audio.attacks._foolbox import criterion_of, foolbox, wrapped
from nip_audio.attacks.base import Attack, Norm, System, require_eps
from nip_audio.errors import AttackError

__all__ = ["GRADIENT_ATTACKS", "GradientAttack"]

GRADIENT_ATTACKS: tuple[str, ...] = ("fgsm", "bim", "mi-fgsm", "pgd", "eot")


@dataclass(frozen=True)
class GradientAttack(Attack):
    """Steps along the sign of the gradient of the loss, within an L∞ ball of radius ε.

    ``fgsm`` takes one step of ε from the input (Goodfellow et al. 2015), ``bim`` several
    (Kurakin et al. 2017), ``mi-fgsm`` several with momentum (Dong et al. 2018), ``pgd`` several
    from a random point of the ball (Madry et al. 2018), and ``eot`` is PGD on the loss averaged
    over ``draws`` random changes of the example (Athalye et al. 2018): a gain of ±3 dB and white
    noise of ε/2 rms, so that the example survives such changes in transmission.

    Where the gradient at the input is zero, as for a recording that is attacked against itself, the
    first three begin with a small random step. FGSM is then R+FGSM, a random step of α and one of
    ε − α along the gradient (Tramèr et al. 2018). See ``start.rows_to_move``.

    The default settings are those of SpeakerGuard: 10 steps of ε/5.

    Deviation: Foolbox's MI-FGSM accumulates signs of gradients; the paper accumulates gradients
    divided by their L1 norm.

    Attributes:
        method: One of ``GRADIENT_ATTACKS``.
        eps: Largest change of a value, in units of the input.
        steps: Number of steps, except for FGSM.
        step_share: Size of a step as a share of ε.
        draws: Number of random changes per step of EOT.

    Raises:
        AttackError: If a setting is out of range.
    """

    method: str
    eps: float
    steps: int = 10
    step_share: float = 0.2
    draws: int = 8

    white_box: ClassVar[bool] = True
    norm: ClassVar[Norm] = "linf"

    def __post_init__(self) -> None:
        """Validate the settings."""
        if self.method not in GRADIENT_ATTACKS:
            raise AttackError(f"method is {self.method!r}, expected one of {GRADIENT_ATTACKS}")
        require_eps(self.eps)
        if self.steps < 1 or self.draws < 1 or not self.step_share > 0:
            raise AttackError(
                f"steps is {self.steps}, draws {self.draws} and step_share {self.step_share}, "
                "expected ≥ 1, ≥ 1 and > 0"
            )

    @property
    def name(self) -> str:
        """Name in the registry."""
        return self.method

    @property
    def limit(self) -> float:
        """Largest change of a value, in units of the input."""
        return self.eps

    @property
    def starts_at_input(self) -> bool:
        """True, except for PGD and EOT, which start at a random point."""
        return self.method in ("fgsm", "bim", "mi-fgsm")

    def settings(self) -> dict[str, Any]:
        """Return the name and the settings that the method uses."""
        settings: dict[str, Any] = {"name": self.name, "eps": self.eps}
        if self.method != "fgsm":
            settings |= {"steps": self.steps, "step_share": self.step_share}
        if self.method == "eot":
            settings |= {"draws": self.draws}
        return settings

    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        attacked: nn.Module = system
        if self.method == "eot":
            attacked = _RandomChanges(system, self.draws, self.eps, generator)
        x: Tensor = self._library_attack().run(
            wrapped(system, attacked), system.batch.x, criterion_of(system), epsilon=self.eps
        )
        return x

    def _library_attack(self) -> Any:
        attacks = foolbox().attacks
        steps = {"rel_stepsize": self.step_share, "steps": self.steps}
        if self.method == "mi-fgsm":
            return attacks.LinfMomentumIterativeFastGradientMethod(**steps)
        # One step of size ε from the input is FGSM, targeted or not; Foolbox's own FGSM class
        # refuses targets.
        if self.method == "fgsm":
            steps = {"rel_stepsize": 1.0, "steps": 1}
        start = self.method in ("pgd", "eot")
        return attacks.LinfProjectedGradientDescentAttack(**steps, random_start=start)


class _RandomChanges(nn.Module):
    """The system's mean logits over random gains and white noise."""

    def __init__(self, system: System, draws: int, eps: float, generator: torch.Generator) -> None:
        super().__init__()
        self.system = system
        self.draws = draws
        self.noise_rms = eps / 2
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros((), device=x.device)
        for _ in range(self.draws):
            shape = (len(x), *[1] * (x.dim() - 1))
            gain_db = 6 * torch.rand(shape, generator=self.generator) - 3
            noise = self.noise_rms * torch.randn(x.shape, generator=self.generator)
            changed = x * (10 ** (gain_db / 20)).to(x) + noise.to(x)
            total = total + self.system(self.system.bounds.clip(changed))
        return total / self.draws
