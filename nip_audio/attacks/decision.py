"""Black-box attacks by Foolbox that need decisions alone: AUNA, pointwise and Boundary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nip_audio.attacks._art import Spent, seeded_globals
from nip_audio.attacks._foolbox import criterion_of, foolbox, leaving, wrapped
from nip_audio.attacks.base import Attack, Norm, System, require_eps
from nip_audio.errors import AttackError

__all__ = ["AdditiveUniformNoise", "Boundary", "Pointwise"]


@dataclass(frozen=True)
class AdditiveUniformNoise(Attack):
    """Uniform noise within ±ε, drawn until it fools (AUNA; Rauber et al. 2020).

    Attributes:
        eps: Largest change of a value, in units of the input.
        queries: Draws.

    Raises:
        AttackError: If a setting makes no sense.
    """

    eps: float
    queries: int = 100

    white_box: ClassVar[bool] = False
    norm: ClassVar[Norm] = "linf"

    def __post_init__(self) -> None:
        """Check."""
        require_eps(self.eps)
        _require_queries(self.queries)

    @property
    def name(self) -> str:
        """Name in the registry."""
        return "auna"

    @property
    def limit(self) -> float:
        """ε."""
        return self.eps

    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        kind = foolbox().attacks.LinfRepeatedAdditiveUniformNoiseAttack
        with torch.no_grad():
            x: Tensor = kind(repeats=self.queries).run(
                wrapped(system), system.batch.x, criterion_of(system), epsilon=self.eps
            )
        # Foolbox scales the noise by its largest value, not its largest magnitude
        clean = system.batch.x
        return clean + (x - clean).clamp(-self.eps, self.eps)


@dataclass(frozen=True)
class Pointwise(Attack):
    """Sets values of an example that fools back to the clean ones, one by one (PWA; Schott 2018).

    It starts from salt-and-pepper noise. An item that no such noise fools stays as it is.

    Attributes:
        queries: Inputs scored an item, at most: a spectrogram has thousands of values, so the walk
            seldom ends by itself.

    Raises:
        AttackError: If a setting makes no sense, or there is a target among several classes.
    """

    queries: int = 2000

    white_box: ClassVar[bool] = False
    norm: ClassVar[Norm] = "minimum"

    def __post_init__(self) -> None:
        """Check."""
        _require_queries(self.queries)

    @property
    def name(self) -> str:
        """Name in the registry."""
        return "pwa"

    @property
    def query_limit(self) -> int:
        """As set."""
        return self.queries

    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        attack = foolbox().attacks.PointwiseAttack()
        return _from_noise(system, attack, self.name, generator)


@dataclass(frozen=True)
class Boundary(Attack):
    """Walks along the decision boundary towards the clean item, in L2 (Brendel et al. 2018).

    It starts from salt-and-pepper noise. An item that no such noise fools stays as it is.

    Attributes:
        steps: Steps.
        queries: Inputs scored an item, at most.

    Raises:
        AttackError: If a setting makes no sense, or there is a target among several classes.
    """

    steps: int = 2000
    queries: int = 2000

    white_box: ClassVar[bool] = False
    norm: ClassVar[Norm] = "minimum"

    def __post_init__(self) -> None:
        """Check."""
        _require_queries(self.queries)
        if self.steps < 1:
            raise AttackError(f"steps is {self.steps}, expected ≥ 1")

    @property
    def name(self) -> str:
        """Name in the registry."""
        return "boundary"

    @property
    def query_limit(self) -> int:
        """As set."""
        return self.queries

    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        attack = foolbox().attacks.BoundaryAttack(steps=self.steps)
        return _from_noise(system, attack, self.name, generator)


_START_STEPS = 30


def _from_noise(system: System, attack: Any, name: str, generator: torch.Generator) -> Tensor:
    """Start from salt-and-pepper noise where that fools, and keep the closest that does."""
    clean = system.batch.x
    criterion, _ = leaving(system, name)
    closest = _Closest(system, list(range(len(clean))), criterion.labels.raw)
    salt_and_pepper = foolbox().attacks.SaltAndPepperNoiseAttack(
        steps=_START_STEPS, across_channels=False
    )

    def run(part: _Closest, attack: Callable[..., object], **options: object) -> None:
        labels = foolbox().criteria.Misclassification(part.label)
        with suppress(Spent), torch.no_grad(), seeded_globals(generator):
            attack(wrapped(system, part), clean[part.rows], labels, **options)

    run(closest, salt_and_pepper.run)
    rows = closest.fooled_rows()
    if rows:
        walking = _Closest(system, rows, closest.label[rows])
        walking.found, walking.distance = closest.found[rows], closest.distance[rows]
        # what is fooled as it is cannot come closer
        if bool((walking.distance > 0).any()):
            run(walking, attack.run, starting_points=walking.found.clone())
        closest.found[rows] = walking.found
    return closest.found


class _Closest(nn.Module):
    """A part of the items, as a function that remembers the closest example that fooled.

    Attributes:
        rows: Which items of the system.
        label: (R,) class that each is to leave.
        found: (R, *S) closest example that fools, else the item.
        distance: (R,) its L2 distance, infinite where none fools.
    """

    def __init__(self, system: System, rows: Sequence[int], label: Tensor) -> None:
        super().__init__()
        self.system = system
        self.rows = list(rows)
        self.label = label
        self.clean = system.batch.x[self.rows]
        self.found = self.clean.clone()
        self.distance = torch.full((len(self.rows),), torch.inf, device=self.clean.device)

    def fooled_rows(self) -> list[int]:
        """Positions, in this part, of the items that something fooled."""
        return [i for i, d in enumerate(self.distance.tolist()) if d < torch.inf]

    def forward(self, x: Tensor) -> Tensor:
        if self.system.exhausted:
            raise Spent
        logits: Tensor = self.system(x, self.rows)
        distance = (x - self.clean).flatten(1).norm(dim=1)
        closer = (logits.argmax(dim=1) != self.label) & (distance < self.distance)
        self.found[closer], self.distance[closer] = x[closer], distance[closer]
        return logits


def _require_queries(queries: int) -> None:
    if queries < 1:
        raise AttackError(f"queries is {queries}, expected ≥ 1")
