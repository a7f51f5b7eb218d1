"""End-to-end PGD: projected gradient descent through defence and model.

This is the adaptive attack by which every defence is evaluated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nip_audio.attacks.base import Attack, Norm, System, require_eps
from nip_audio.errors import AttackError

__all__ = ["EndToEndPgd"]


@dataclass(frozen=True)
class EndToEndPgd(Attack):
    """PGD with restarts that, against random defences, averages over draws (EOT).

    EOT is expectation over transformation. The attacker knows the whole defence. With the objective
    of a ``DefendedModel``, gradients flow through purifier and model; a purifier without a gradient
    is treated as the identity (BPDA, backward pass differentiable approximation). With a
    ``Guarded`` objective, the detector is part of the loss (Tramèr et al. 2020).

    Only items on which the attack has not succeeded yet are started again. The first successful
    start is kept, else the one with the highest loss. Against a random defence the attack counts as
    successful if it succeeds in more than half of ``draws`` answers.

    Attributes:
        eps: Largest change of a value, in units of the input.
        steps: Number of steps per start.
        step_share: Size of a step as a share of ε.
        restarts: Number of random starts.
        draws: Number of answers averaged in every step.

    Raises:
        AttackError: If a setting is out of range.
    """

    eps: float
    steps: int = 40
    step_share: float = 0.1
    restarts: int = 3
    draws: int = 1

    white_box: ClassVar[bool] = True
    norm: ClassVar[Norm] = "linf"

    def __post_init__(self) -> None:
        """Validate the settings."""
        require_eps(self.eps)
        if min(self.steps, self.restarts, self.draws) < 1 or not self.step_share > 0:
            raise AttackError(
                f"steps is {self.steps}, restarts {self.restarts}, draws {self.draws} and "
                f"step_share {self.step_share}, expected ≥ 1 each and > 0"
            )

    @property
    def name(self) -> str:
        """Name in the registry."""
        return "pgd-e2e"

    @property
    def limit(self) -> float:
        """Largest change of a value, in units of the input."""
        return self.eps

    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        clean = system.batch.x
        best = clean.clone()
        best_loss = torch.full((len(clean),), -torch.inf, dtype=torch.float64, device=clean.device)
        active = list(range(len(clean)))
        for _ in range(self.restarts):
            start = torch.rand(clean.shape, generator=generator).to(clean) * 2 - 1
            x = self._project(clean + self.eps * start, clean, system)[active]
            x = self._ascend(system, x, active)
            with torch.no_grad():
                loss, fooled = self._judge(system, x, active)
            better = fooled | (loss > best_loss[active])
            kept = torch.tensor(active, device=clean.device)[better]
            best[kept], best_loss[kept] = x[better], loss[better]
            active = [row for row, done in zip(active, fooled.tolist(), strict=True) if not done]
            if not active:
                break
        return best

    def _ascend(self, system: System, x: Tensor, rows: list[int]) -> Tensor:
        clean = system.batch.x[rows]
        for _ in range(self.steps):
            x = x.detach().requires_grad_(True)
            loss = sum(self._loss(system, system(x, rows), rows) for _ in range(self.draws))
            (gradient,) = torch.autograd.grad(loss.sum(), x)  # type: ignore[union-attr]
            step = self.step_share * self.eps * gradient.sign()
            x = self._project(x.detach() + step, clean, system)
        return x.detach()

    def _loss(self, system: System, logits: Tensor, rows: list[int]) -> Tensor:
        """Return the loss that the attacker maximises: (R,)."""
        loss = torch.nn.functional.cross_entropy(logits, system.label[rows], reduction="none")
        return -loss if system.targeted else loss

    def _judge(self, system: System, x: Tensor, rows: list[int]) -> tuple[Tensor, Tensor]:
        """Return the mean loss, and whether the attack succeeds in most answers: (R,) each."""
        losses, hits = [], []
        for _ in range(self.draws):
            logits = system(x, rows)
            losses.append(self._loss(system, logits, rows))
            hit = logits.argmax(dim=1) == system.label[rows]
            hits.append((hit if system.targeted else ~hit).double())
        return torch.stack(losses).mean(dim=0), torch.stack(hits).mean(dim=0) > 0.5

    def _project(self, x: Tensor, clean: Tensor, system: System) -> Tensor:
        return system.bounds.clip(clean + (x - clean).clamp(-self.eps, self.eps))
