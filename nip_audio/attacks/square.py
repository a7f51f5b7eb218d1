"""Square: a random search that needs only scores.

Implemented by the Adversarial Robustness Toolbox (ART).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from nip_audio.attacks._art import ItemGoal, attack_items, evasion, seeded_globals
from nip_audio.attacks.base import Attack, Norm, System, require_eps
from nip_audio.errors import AttackError

__all__ = ["Square", "require_foldable", "require_spectrogram", "square_search"]

_FEWEST_SAMPLES = 16  # of a waveform that is folded


def require_spectrogram(system: System, name: str) -> None:
    """Refuse input that is no spectrogram (B, F, T) or image (B, C, H, W).

    Raises:
        AttackError: If the input has another shape.
    """
    shape = tuple(system.batch.x.shape)
    if len(shape) not in (3, 4) or min(shape[-2:]) < 2:
        raise AttackError(
            f"{name} got input of shape {shape}, expected spectrograms (items, F ≥ 2, T ≥ 2); work "
            "at level 'input', on model.without_front_end()"
        )


def require_foldable(system: System, name: str) -> None:
    """Refuse input that is no spectrogram or image, and no waveform of at least 16 samples.

    Raises:
        AttackError: If the input has another shape.
    """
    if system.batch.x.dim() != 2 or system.batch.x.shape[1] < _FEWEST_SAMPLES:
        require_spectrogram(system, name)


def square_search(goal: ItemGoal, *, eps: float, steps: int) -> Any:
    """Return ART's Square attack on a goal.

    The squares start at 80 % of the image, as in the paper. In a long image, where such a square
    does not fit and ART would fail, they start at the largest one that fits.
    """
    height, width = goal.shape[-2:]
    share = min(0.8, (min(height, width) - 1) ** 2 / (height * width))
    return evasion().SquareAttack(
        goal.classifier(), max_iter=steps, eps=eps, p_init=share, verbose=False
    )


@dataclass(frozen=True)
class Square(Attack):
    """Adds squares of ±ε at random places, and keeps those that help (Andriushchenko et al. 2020).

    Deviation: a waveform is folded into rows of about √N samples, so that a square is a run of
    samples that repeats.

    The attack stops at the first successful example; an item without one is returned unchanged.

    Attributes:
        eps: Largest change of a value, in units of the input.
        queries: Largest number of queries per item.

    Raises:
        AttackError: If a setting is out of range, or if the input is too small.
    """

    eps: float
    queries: int = 1000

    white_box: ClassVar[bool] = False
    norm: ClassVar[Norm] = "linf"

    def __post_init__(self) -> None:
        """Validate the settings."""
        require_eps(self.eps)
        if self.queries < 1:
            raise AttackError(f"queries is {self.queries}, expected ≥ 1")

    @property
    def name(self) -> str:
        """Name in the registry."""
        return "square"

    @property
    def limit(self) -> float:
        """Largest change of a value, in units of the input."""
        return self.eps

    @property
    def query_limit(self) -> int:
        """Largest number of queries per item."""
        return self.queries

    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        require_foldable(system, self.name)

        def attack(goal: ItemGoal) -> None:
            search = square_search(goal, eps=self.eps, steps=self.queries)
            search.generate(goal.x, goal.own)

        with seeded_globals(generator):
            return attack_items(system, attack, eps=self.eps, folded=True)
