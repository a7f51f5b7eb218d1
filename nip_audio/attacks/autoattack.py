"""AutoAttack, implemented by the Adversarial Robustness Toolbox (ART)."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import ClassVar

import torch
from torch import Tensor

from nip_audio.attacks._art import ItemGoal, attack_items, evasion, seeded_globals
from nip_audio.attacks.base import Attack, Norm, System, require_eps
from nip_audio.attacks.square import require_spectrogram, square_search
from nip_audio.errors import AttackError, MissingDependencyError

__all__ = ["AutoAttack"]


@dataclass(frozen=True)
class AutoAttack(Attack):
    """APGD on two losses, cross-entropy and difference of logits ratio, then Square.

    Source: Croce & Hein 2020. APGD is automatic projected gradient descent.

    Each part attacks the items on which the parts before it failed. The ratio needs three classes
    and a class to leave: it is skipped against verification and for targeted goals, where the
    cross-entropy is taken of the target's margin over its nearest rival. Square runs on
    spectrograms and images only. Where the softmax of the system saturates, only the ratio and the
    margin show progress.

    Deviation: one random start instead of five, and fewer steps; FAB (fast adaptive boundary) and
    the targeted parts are missing in ART. An item on which every part fails is returned unchanged.

    Attributes:
        eps: Largest change of a value, in units of the input.
        steps: Number of steps of each APGD run. The step size starts at 2 ε and is halved; with 10
            steps it can be weaker than PGD.
        square_steps: Number of steps of Square.

    Raises:
        AttackError: If a setting is out of range.
    """

    eps: float
    steps: int = 50
    square_steps: int = 500

    white_box: ClassVar[bool] = True
    norm: ClassVar[Norm] = "linf"

    def __post_init__(self) -> None:
        """Validate the settings."""
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
        """Largest change of a value, in units of the input."""
        return self.eps

    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        attacks = evasion()
        _require_multiprocess()
        spectrogram = system.batch.x.dim() > 2
        if spectrogram:
            require_spectrogram(system, self.name)

        def attack(goal: ItemGoal) -> None:
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
    """Require the package that ART imports in AutoAttack without declaring it."""
    if find_spec("multiprocess") is None:
        raise MissingDependencyError(
            "ART's AutoAttack needs the package multiprocess", extra="attacks"
        )
