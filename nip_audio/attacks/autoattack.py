"""AutoAttack by ART."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import ClassVar

import torch
from torch import Tensor

from nip_audio.attacks._art import Goal, attack_items, evasion, seeded_globals
from nip_audio.attacks.base import Attack, Norm, System, require_eps
from nip_audio.attacks.square import require_spectrogram, square_search
from nip_audio.errors import AttackError, MissingDependencyError

__all__ = ["AutoAttack"]


@dataclass(frozen=True)
class AutoAttack(Attack):
    """APGD on two losses, cross-entropy and difference of logits ratio, then Square.

    Source: Croce & Hein 2020.

    Each is for the items that those before did not fool. The ratio needs three classes and a class
    to leave: it is left out against verification, and where there is a target, for which the margin
    of the target over its nearest rival stands in the cross-entropy. Square is for spectrograms. Of
    a system surer than a softmax can tell, only the ratio and the margin show progress.

    Deviation: one random start instead of five, and fewer steps; FAB and the targeted parts, which
    ART lacks, are missing. Where nothing fools, the item stays as it is.

    Attributes:
        eps: Largest change of a value, in units of the input.
        steps: Steps of each APGD. They start at 2 ε and shrink by halves: with 10 it can be weaker
            than PGD.
        square_steps: Steps of Square.

    Raises:
        AttackError: If a setting makes no sense.
    """

    eps: float
    steps: int = 50
    square_steps: int = 500

    white_box: ClassVar[bool] = True
    norm: ClassVar[Norm] = "linf"

    def __post_init__(self) -> None:
        """Check."""
        require_eps(self.eps)
        if self.steps < 1 or self.square_steps < 1:
            raise AttackError(
                f"steps is {self.steps} and square_steps {self.square_steps}, expected ≥ 1 each"
            )

    @property
    def name(self) -> str:
        """Name in the registry."""
        return "autoattack"

    @property
    def limit(self) -> float:
        """ε."""
        return self.eps

    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        attacks = evasion()
        _require_multiprocess()
        spectrogram = system.batch.x.dim() > 2
        if spectrogram:
            require_spectrogram(system, self.name)

        def attack(goal: Goal) -> None:
            classifier = goal.classifier()
            ball = {"eps": self.eps, "eps_step": 2 * self.eps}
            losses = ["cross_entropy", "difference_logits_ratio"][: 2 if goal.classes > 2 else 1]
            parts = [
                attacks.AutoProjectedGradientDescent(
                    classifier,
                    loss_type=loss,
                    max_iter=self.steps,
                    nb_random_init=1,
                    verbose=False,
                    **ball,
                )
                for loss in losses
            ]
            if spectrogram:
                parts.append(square_search(goal, eps=self.eps, steps=self.square_steps))
            attacks.AutoAttack(classifier, attacks=parts, **ball).generate(goal.x, goal.own)

        with seeded_globals(generator):
            return attack_items(system, attack, eps=self.eps, own_classes=True)


def _require_multiprocess() -> None:
    """ART imports this package in AutoAttack without declaring it."""
    if find_spec("multiprocess") is None:
        raise MissingDependencyError(
            "ART's AutoAttack needs the package multiprocess", extra="attacks"
        )
