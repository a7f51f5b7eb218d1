"""Square by ART: random search with the scores alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from nip_audio.attacks._art import Goal, attack_items, evasion, seeded_globals
from nip_audio.attacks.base import Attack, Norm, System, require_eps
from nip_audio.errors import AttackError

__all__ = ["Square", "require_spectrogram", "square_search"]


def require_spectrogram(system: System, name: str) -> None:
    """Refuse input that is no spectrogram (B, F, T) or image (B, C, H, W).

    Raises:
        AttackError: With the remedy.
    """
    shape = tuple(system.batch.x.shape)
    if len(shape) not in (3, 4) or min(shape[-2:]) < 2:
        raise AttackError(
            f"{name} got input of shape {shape}, expected spectrograms (items, F ≥ 2, T ≥ 2); work "
            "at level 'input', on model.without_front_end()"
        )


def square_search(goal: Goal, *, eps: float, steps: int) -> Any:
    """Return ART's attack on a goal.

    Its squares start at the paper's 80 % of the image, or at the largest that fits strictly into a
    long one, where ART would fail.
    """
    height, width = goal.shape[-2:]
    share = min(0.8, (min(height, width) - 1) ** 2 / (height * width))
    return evasion().SquareAttack(
        goal.classifier(), max_iter=steps, eps=eps, p_init=share, verbose=False
    )


@dataclass(frozen=True)
class Square(Attack):
    """Squares of ±ε at random places, kept where they help (Andriushchenko et al. 2020).

    It stops at the first example that fools; where none does, the item stays as it is.

    Attributes:
        eps: Largest change of a value, in units of the input.
        queries: Examples scored, at most.

    Raises:
        AttackError: If a setting makes no sense, or the input is no spectrogram.
    """

    eps: float
    queries: int = 1000

    white_box: ClassVar[bool] = False
    norm: ClassVar[Norm] = "linf"

    def __post_init__(self) -> None:
        """Check."""
        require_eps(self.eps)
        if self.queries < 1:
            raise AttackError(f"queries is {self.queries}, expected ≥ 1")

    @property
    def name(self) -> str:
        """Name in the registry."""
        return "square"

    @property
    def limit(self) -> float:
        """ε."""
        return self.eps

    @property
    def query_limit(self) -> int:
        """As set."""
        return self.queries

    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        require_spectrogram(system, self.name)

        def attack(goal: Goal) -> None:
            search = square_search(goal, eps=self.eps, steps=self.queries)
            search.generate(goal.x, goal.own)

        with seeded_globals(generator):
            return attack_items(system, attack, eps=self.eps)
