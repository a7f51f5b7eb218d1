"""Universal adversarial perturbation (UAP): one change for all items of a batch.

Implemented by the Adversarial Robustness Toolbox (ART).
"""

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
    failed_or_succeeded,
    margin_of,
    seeded_globals,
)
from nip_audio.attacks.base import Attack, Norm, System, require_eps
from nip_audio.errors import AttackError

__all__ = ["UniversalPerturbation"]

# values of the authors' implementation
_INNER_STEPS = 10
_OVERSHOOT = 0.02


@dataclass(frozen=True)
class UniversalPerturbation(Attack):
    """One perturbation that succeeds on as many items as possible (Moosavi-Dezfooli et al. 2017).

    The perturbation is universal within the batch, and is added to every item, including those on
    which it fails, so results depend on how a set is split into batches. For every item on which it
    does not succeed yet, DeepFool extends it, and it is clipped to ε. If the gradient at an item is
    zero, all items start from the same random step.

    Attributes:
        eps: Largest change of a value, in units of the input.
        steps: Largest number of passes over the batch.

    Raises:
        AttackError: If a setting is out of range.
    """

    eps: float
    steps: int = 10

    white_box: ClassVar[bool] = True
    norm: ClassVar[Norm] = "linf"
    shared: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Validate the settings."""
        require_eps(self.eps)
        if self.steps < 1:
            raise AttackError(f"steps is {self.steps}, expected ≥ 1")

    @property
    def name(self) -> str:
        """Name in the registry."""
        return "uap"

    @property
    def limit(self) -> float:
        """Largest change of a value, in units of the input."""
        return self.eps

    @property
    def starts_at_input(self) -> bool:
        """True: the first DeepFool run starts at the input."""
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
            attack.generate(goals.x, goals.failed)
        noise = torch.from_numpy(attack.noise)[:, :-1].nan_to_num()
        clean = system.batch.x
        noise = noise.reshape(1, *clean.shape[1:]).to(clean).clamp(-self.eps, self.eps)
        return system.bounds.clip(clean + noise)


class _NumberedGoals(nn.Module):
    """Goals of all items, (attack failed, attack succeeded), in rows that carry their item's index.

    ART queries single rows without saying which item they belong to, and items may differ in length
    and enrolled voice. Each row therefore has one additional value, the index of its item scaled
    into the bounds. The output does not depend smoothly on that value, so no gradient changes it.

    Attributes:
        x: (B, D + 1) float32, the flattened items and their scaled indices.
        failed: (B, 2) float32 one-hot, the class to leave.
    """

    def __init__(self, system: System) -> None:
        super().__init__()
        self._system = (system,)  # in a tuple, so that neither torch nor ART registers it as a part
        clean = system.batch.x
        bounds = system.bounds
        self._low, self._unit = bounds.low, (bounds.high - bounds.low) / len(clean)
        numbers = self._low + self._unit * torch.arange(len(clean))
        values = clean.flatten(1).float().cpu()
        self.x: NDArray[np.float32] = torch.cat([values, numbers[:, None]], dim=1).numpy()
        self.failed = np.tile(np.array([[1.0, 0.0]], dtype=np.float32), (len(clean), 1))

    def forward(self, x: Tensor) -> Tensor:
        (system,) = self._system
        rows = ((x[:, -1].detach() - self._low) / self._unit).round().long().tolist()
        clean = system.batch.x
        logits = system.scores(x[:, :-1].reshape(len(x), *clean.shape[1:]).to(clean), rows)
        margin = margin_of(logits, system.label[rows], targeted=system.targeted)
        return failed_or_succeeded(margin).cpu()
