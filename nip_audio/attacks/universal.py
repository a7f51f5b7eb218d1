"""Universal adversarial perturbations (UAP): one change for all items of a batch.

The one that DeepFool builds is implemented by the Adversarial Robustness Toolbox (ART).
"""

from __future__ import annotations

from collections.abc import Iterator
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

__all__ = ["UniversalDeepFool", "UniversalPerturbation"]

_ENOUGH = 0.1  # margin beyond which an item counts no more, as a share of the mean clean distance

# values of DeepFool in the authors' implementation
_INNER_STEPS = 10
_OVERSHOOT = 0.02


@dataclass(frozen=True)
class UniversalPerturbation(Attack):
    """One perturbation that succeeds on as many items as possible, by signs of gradients.

    Projected gradient ascent on the perturbation that all items share, over mini-batches (Shafahi
    et al. 2020, "Universal adversarial training", without the training). What rises is the mean of
    the attacker's margins, clipped above so that items on which it succeeds do not outweigh the
    others: at a tenth of the mean distance from the decision that the clean items have.

    The perturbation is universal within the batch, and is added to every item, including those on
    which it fails, so results depend on how a set is split into batches. If the items have several
    targets, there is one perturbation for each target. Of a shorter item, the beginning is used. If
    the gradient at an item is zero, all items start from the same random step.

    Deviation: the paper clips the cross-entropy, whose scale differs from system to system.

    Attributes:
        eps: Largest change of a value, in units of the input.
        steps: Number of mini-batches.
        step_share: Size of a step as a share of ε.
        mini_batch: Largest number of items in a mini-batch.

    Raises:
        AttackError: If a setting is out of range.
    """

    eps: float
    steps: int = 100
    step_share: float = 0.1
    mini_batch: int = 25

    white_box: ClassVar[bool] = True
    norm: ClassVar[Norm] = "linf"
    shared: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Validate the settings."""
        require_eps(self.eps)
        if self.steps < 1 or self.mini_batch < 1 or not self.step_share > 0:
            raise AttackError(
                f"steps is {self.steps}, mini_batch {self.mini_batch} and step_share "
                f"{self.step_share}, expected ≥ 1, ≥ 1 and > 0"
            )

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
        """True: the perturbation starts at zero."""
        return True

    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        clean, bounds = system.batch.x, system.bounds
        with torch.no_grad():
            logits = system.scores(clean)
            margin = margin_of(logits, system.label, targeted=system.targeted)
        enough = _ENOUGH * float(margin.abs().mean())
        # one perturbation for all, or for each target
        groups = torch.zeros_like(system.label)
        if system.targeted:
            _, groups = torch.unique(system.label, return_inverse=True)
        delta = clean.new_zeros(int(groups.max()) + 1, *clean.shape[1:])
        for rows in _mini_batches(len(clean), self.mini_batch, self.steps, generator):
            delta.requires_grad_(True)
            x = bounds.clip(clean[rows] + delta[groups[rows]])
            margin = margin_of(system.scores(x, rows), system.label[rows], targeted=system.targeted)
            (slope,) = torch.autograd.grad(margin.clamp_max(enough).sum(), delta)
            step = self.step_share * self.eps * slope.sign()
            delta = (delta.detach() + step).clamp(-self.eps, self.eps)
        return bounds.clip(clean + delta[groups])


def _mini_batches(
    count: int, size: int, steps: int, generator: torch.Generator
) -> Iterator[list[int]]:
    """Yield the rows of ``steps`` mini-batches; each pass over the items is in another order."""
    left: list[int] = []
    for _ in range(steps):
        if not left:
            left = torch.randperm(count, generator=generator).tolist()
        yield left[:size]
        left = left[size:]


@dataclass(frozen=True)
class UniversalDeepFool(Attack):
    """Universal perturbation that DeepFool builds item by item (Moosavi-Dezfooli et al. 2017).

    The perturbation is universal within the batch, and is added to every item, including those on
    which it fails, so results depend on how a set is split into batches. For every item on which it
    does not succeed yet, DeepFool extends it, and it is clipped to ε. If the gradient at an item is
    zero, all items start from the same random step.

    At the small ε of speech it seldom succeeds: steps to one item's boundary cancel the others'.
    ``UniversalPerturbation`` is stronger.

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
        return "uap-deepfool"

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
