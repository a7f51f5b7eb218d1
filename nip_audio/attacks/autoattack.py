"""AutoAttack: four attacks in a row, each on the items on which those before it failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from nip_audio.attacks._art import ItemGoal, attack_items, evasion, seeded_globals
from nip_audio.attacks._auto_parts import (
    apgd,
    cross_entropy,
    difference,
    fab,
    logits_ratio,
    rivals,
)
from nip_audio.attacks.base import Attack, Norm, System, require_eps
from nip_audio.attacks.square import require_foldable, square_search
from nip_audio.errors import AttackError

__all__ = ["AutoAttack"]

_Part = Callable[[System, Tensor], tuple[Tensor, Tensor]]
"""Attacks a system, with a target (B,) of each item: examples, and where the attack succeeds."""


@dataclass(frozen=True)
class AutoAttack(Attack):
    """The four parts of AutoAttack's standard version (Croce & Hein 2020), by its settings.

    1. APGD-CE: automatic projected gradient descent on the cross-entropy.
    2. Targeted APGD-DLR: towards each of the most likely other classes, on the difference of
       logits ratio. With fewer than four classes, as in verification, the ratio is undefined, and
       the difference of logits stands for it.
    3. Targeted FAB, the fast adaptive boundary attack, towards the same classes.
    4. Square, a search that needs scores only, by the Adversarial Robustness Toolbox (ART).

    Each part attacks the items on which the parts before it failed. If the goal has a target, all
    parts aim at it. An item on which every part fails is returned unchanged.

    Deviation: FAB stops at a change of ε instead of looking for the smallest one. Waveforms are
    folded for Square (see ``Square``).

    Attributes:
        eps: Largest change of a value, in units of the input.
        steps: Number of steps of each APGD and FAB run. The step size of APGD starts at 2 ε and is
            halved; with 10 steps it can be weaker than PGD.
        targets: Largest number of classes that the targeted parts try.
        square_steps: Number of steps of Square.

    Raises:
        AttackError: If a setting is out of range, or if the input is too small for Square.
    """

    eps: float
    steps: int = 100
    targets: int = 9
    square_steps: int = 5000

    white_box: ClassVar[bool] = True
    norm: ClassVar[Norm] = "linf"

    def __post_init__(self) -> None:
        """Validate the settings."""
        require_eps(self.eps)
        if min(self.steps, self.targets, self.square_steps) < 1:
            raise AttackError(
                f"steps is {self.steps}, targets {self.targets} and square_steps "
                f"{self.square_steps}, expected ≥ 1 each"
            )

    @property
    def name(self) -> str:
        """Name in the registry."""
        return "autoattack"

    @property
    def limit(self) -> float:
        """Largest change of a value, in units of the input."""
        return self.eps

    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        require_foldable(system, self.name)
        evasion()  # Square needs it, after all other parts
        x = system.batch.x.clone()
        left = (~system.fooled(x)).nonzero()[:, 0]
        for part, target in self._parts(rivals(system, self.targets), generator):
            if not len(left):
                break
            rest = system.part(left.tolist())
            found, done = part(rest, target[left])
            x[left[done]] = found[done]
            left = left[~done]
            system.add_cost(rest)
        return x

    def _parts(
        self, targets: Sequence[Tensor], generator: torch.Generator
    ) -> Iterator[tuple[_Part, Tensor]]:
        """Yield the parts in order, each with the targets (B,) of all items."""
        given: dict[str, Any] = {"eps": self.eps, "steps": self.steps}

        def entropy(rest: System, target: Tensor) -> tuple[Tensor, Tensor]:
            return apgd(rest, cross_entropy(rest), generator=generator, **given)

        def ratio(rest: System, target: Tensor) -> tuple[Tensor, Tensor]:
            return apgd(rest, logits_ratio(rest, target), generator=generator, **given)

        def boundary(rest: System, target: Tensor) -> tuple[Tensor, Tensor]:
            return fab(rest, difference(rest, target), **given)

        def square(rest: System, target: Tensor) -> tuple[Tensor, Tensor]:
            def search(goal: ItemGoal) -> None:
                attack = square_search(goal, eps=self.eps, steps=self.square_steps)
                attack.generate(goal.x, goal.own)

            with seeded_globals(generator):
                x = attack_items(rest, search, eps=self.eps, folded=True)
            return x, rest.fooled(x)

        yield entropy, targets[0]
        for part in (ratio, boundary):
            for target in targets:
                yield part, target
        yield square, targets[0]
