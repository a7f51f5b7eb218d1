"""A universal perturbation by ART."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nip_audio.attacks._art import (
    classifier,
    evasion,
    foiled_or_through,
    margin_of,
    seeded_globals,
)
from nip_audio.attacks.base import Attack, Norm, System, require_eps
from nip_audio.errors import AttackError

__all__ = ["UniversalPerturbation"]

# of the paper's own implementation
_INNER_STEPS = 10
_OVERSHOOT = 0.02


@dataclass(frozen=True)
class UniversalPerturbation(Attack):
    """One perturbation that is to fool as many items as it can (Moosavi-Dezfooli et al. 2017).

    It is universal over the batch it is given, and is added to each of its items, those that it
    does not fool too; so results depend on how a set is cut into batches. For every item that is
    not fooled yet, DeepFool extends it, and it is cut to ε. Where an item has no slope, all start
    from one random step, the same for every item.

    Attributes:
        eps: Largest change of a value, in units of the input.
        steps: Passes over the batch, at most.

    Raises:
        AttackError: If a setting makes no sense.
    """

    eps: float
    steps: int = 10

    white_box: ClassVar[bool] = True
    norm: ClassVar[Norm] = "linf"
    shared: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check."""
        require_eps(self.eps)
        if self.steps < 1:
            raise AttackError(f"steps is {self.steps}, expected ≥ 1")

    @property
    def name(self) -> str:
        """Name in the registry."""
        return "uap"

    @property
    def limit(self) -> float:
        """ε."""
        return self.eps

    @property
    def starts_at_input(self) -> bool:
        """Yes: its first DeepFool starts there."""
        return True

    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        goals = _NumberedGoals(system)
        attack = evasion().UniversalPerturbation(
            classifier(goals, shape=goals.x.shape[1:], classes=2, bounds=system.bounds),
            attacker="deepfool",
            attacker_params={
                "max_iter": _INNER_STEPS,
                "epsilon": _OVERSHOOT,
                "verbose": False,
            },
            delta=0.0,
            max_iter=self.steps,
            eps=self.eps,
            verbose=False,
        )
        with seeded_globals(generator):
            attack.generate(goals.x, goals.foiled)
        noise = torch.from_numpy(attack.noise)[:, :-1].nan_to_num()
        clean = system.batch.x
        noise = noise.reshape(1, *clean.shape[1:]).to(clean).clamp(-self.eps, self.eps)
        return system.bounds.clip(clean + noise)


class _NumberedGoals(nn.Module):
    """All items' goals, (foiled, through), in rows that say whose they are.

    ART asks about single rows without saying which; items may have their own lengths and voices.
    So each row carries, as one value more, its item's number, scaled into the bounds. Nothing
    depends on that value smoothly, so no gradient ever moves it.

    Attributes:
        x: (B, D + 1) float32.
        foiled: (B, 2) float32 one-hot, the class to leave.
    """

    def __init__(self, system: System) -> None:
        super().__init__()
        self._system = (system,)  # in a tuple, torch does not take it for a part, nor does ART
        clean = system.batch.x
        bounds = system.bounds
        self._low, self._unit = bounds.low, (bounds.high - bounds.low) / len(clean)
        numbers = self._low + self._unit * torch.arange(len(clean))
        values = clean.flatten(1).float().cpu()
        self.x: NDArray[np.float32] = torch.cat([values, numbers[:, None]], dim=1).numpy()
        self.foiled = np.tile(np.array([[1.0, 0.0]], dtype=np.float32), (len(clean), 1))

    def forward(self, x: Tensor) -> Tensor:
        (system,) = self._system
        rows = ((x[:, -1].detach() - self._low) / self._unit).round().long().tolist()
        clean = system.batch.x
        logits = system.scores(x[:, :-1].reshape(len(x), *clean.shape[1:]).to(clean), rows)
        margin = margin_of(logits, system.label[rows], targeted=system.targeted)
        return foiled_or_through(margin).cpu()
