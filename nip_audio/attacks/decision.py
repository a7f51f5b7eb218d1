"""Black-box attacks that need only the decision: additive uniform noise, pointwise and Boundary.

Foolbox implements all three; noise that grows until it succeeds is our own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nip_audio.attacks._art import QueriesExhausted, seeded_globals
from nip_audio.attacks._foolbox import criterion_of, foolbox, untargeted_criterion, wrapped
from nip_audio.attacks.base import Attack, Norm, System, require_eps
from nip_audio.errors import AttackError

__all__ = ["AdditiveUniformNoise", "Boundary", "GrowingUniformNoise", "Pointwise"]


@dataclass(frozen=True)
class AdditiveUniformNoise(Attack):
    """Additive uniform noise (AUNA) within ±ε, drawn until it succeeds (Rauber et al. 2020).

    Attributes:
        eps: Largest change of a value, in units of the input.
        queries: Largest number of draws per item.

    Raises:
        AttackError: If a setting is out of range.
    """

    eps: float
    queries: int = 100

    white_box: ClassVar[bool] = False
    norm: ClassVar[Norm] = "linf"

    def __post_init__(self) -> None:
        """Validate the settings."""
        require_eps(self.eps)
        _require_queries(self.queries)

    @property
    def name(self) -> str:
        """Name in the registry."""
        return "auna"

    @property
    def limit(self) -> float:
        """Largest change of a value, in units of the input."""
        return self.eps

    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        kind = foolbox().attacks.LinfRepeatedAdditiveUniformNoiseAttack
        with torch.no_grad():
            x: Tensor = kind(repeats=self.queries).run(
                wrapped(system), system.batch.x, criterion_of(system), epsilon=self.eps
            )
        # Foolbox scales the noise by its largest value, not by its largest magnitude
        clean = system.batch.x
        return clean + (x - clean).clamp(-self.eps, self.eps)


@dataclass(frozen=True)
class GrowingUniformNoise(Attack):
    """Uniform noise whose size grows step by step until it succeeds (AUNA as the NIP paper has it).

    As in Foolbox 1.8, which that paper cites: step k of n draws new noise within ±(k/n)² of the
    range of the input, and an item keeps the first draw that succeeds. An item that no draw fools
    is returned unchanged.

    Attributes:
        steps: Number n of sizes, and largest number of queries per item; Foolbox 1.8 has 1,000.
        most: Largest size, as a share of the range of the input.

    Raises:
        AttackError: If a setting is out of range.
    """

    steps: int = 1000
    most: float = 1.0

    white_box: ClassVar[bool] = False
    norm: ClassVar[Norm] = "minimum"

    def __post_init__(self) -> None:
        """Validate the settings."""
        _require_queries(self.steps)
        if not 0 < self.most <= 1:
            raise AttackError(
                f"most is {self.most}, expected a share of the range above 0 and at most 1; pass "
                "1 for all of it"
            )

    @property
    def name(self) -> str:
        """Name in the registry."""
        return "auna-grown"

    @property
    def query_limit(self) -> int:
        """Largest number of queries per item."""
        return self.steps + 1

    @torch.no_grad()
    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        clean, bounds = system.batch.x, system.bounds
        x = clean.clone()
        waiting = [row for row, done in enumerate(system.fooled(clean).tolist()) if not done]
        largest = self.most * (bounds.high - bounds.low)
        for step in range(1, self.steps + 1):
            if not waiting or system.exhausted:
                break
            drawn = torch.rand(clean.shape, generator=generator, dtype=clean.dtype)[waiting]
            noise = (2 * drawn.to(clean) - 1) * largest * (step / self.steps) ** 2
            tried = bounds.clip(clean[waiting] + noise)
            hits = system.fooled(tried, waiting).tolist()
            for row, one, hit in zip(waiting, tried, hits, strict=True):
                if hit:
                    x[row] = one
            waiting = [row for row, hit in zip(waiting, hits, strict=True) if not hit]
        return x


@dataclass(frozen=True)
class Pointwise(Attack):
    """Pointwise attack (PWA): resets changed values to the clean ones, one by one (Schott 2018).

    It starts from a successful example with salt-and-pepper noise. An item without one is returned
    unchanged.

    Attributes:
        queries: Largest number of queries per item. A spectrogram has thousands of values, so the
            search usually ends here.

    Raises:
        AttackError: If a setting is out of range, or if the goal is a target among more than two
            classes.
    """

    queries: int = 2000

    white_box: ClassVar[bool] = False
    norm: ClassVar[Norm] = "minimum"

    def __post_init__(self) -> None:
        """Validate the settings."""
        _require_queries(self.queries)

    @property
    def name(self) -> str:
        """Name in the registry."""
        return "pwa"

    @property
    def query_limit(self) -> int:
        """Largest number of queries per item."""
        return self.queries

    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        attack = foolbox().attacks.PointwiseAttack()
        return _from_noise(system, attack, self.name, generator)


@dataclass(frozen=True)
class Boundary(Attack):
    """Walks along the decision boundary towards the clean item, in L2 (Brendel et al. 2018).

    It starts from a successful example with salt-and-pepper noise. An item without one is returned
    unchanged.

    Attributes:
        steps: Number of steps.
        queries: Largest number of queries per item.

    Raises:
        AttackError: If a setting is out of range, or if the goal is a target among more than two
            classes.
    """

    steps: int = 2000
    queries: int = 2000

    white_box: ClassVar[bool] = False
    norm: ClassVar[Norm] = "minimum"

    def __post_init__(self) -> None:
        """Validate the settings."""
        _require_queries(self.queries)
        if self.steps < 1:
            raise AttackError(f"steps is {self.steps}, expected ≥ 1")

    @property
    def name(self) -> str:
        """Name in the registry."""
        return "boundary"

    @property
    def query_limit(self) -> int:
        """Largest number of queries per item."""
        return self.queries

    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        attack = foolbox().attacks.BoundaryAttack(steps=self.steps)
        return _from_noise(system, attack, self.name, generator)


_START_STEPS = 30


def _from_noise(system: System, attack: Any, name: str, generator: torch.Generator) -> Tensor:
    """Start from salt-and-pepper noise where it succeeds; keep the closest successful ones."""
    clean = system.batch.x
    criterion, _ = untargeted_criterion(system, name)
    closest = _Closest(system, list(range(len(clean))), criterion.labels.raw)
    salt_and_pepper = foolbox().attacks.SaltAndPepperNoiseAttack(
        steps=_START_STEPS, across_channels=False
    )

    def run(part: _Closest, attack: Callable[..., object], **options: object) -> None:
        labels = foolbox().criteria.Misclassification(part.label)
        with suppress(QueriesExhausted), torch.no_grad(), seeded_globals(generator):
            attack(wrapped(system, part), clean[part.rows], labels, **options)

    run(closest, salt_and_pepper.run)
    rows = closest.fooled_rows()
    if rows:
        walking = _Closest(system, rows, closest.label[rows])
        walking.found, walking.distance = closest.found[rows], closest.distance[rows]
        # an item on which the unchanged input succeeds cannot come closer
        if bool((walking.distance > 0).any()):
            run(walking, attack.run, starting_points=walking.found.clone())
        closest.found[rows] = walking.found
    return closest.found


class _Closest(nn.Module):
    """A function from some of the items to logits that remembers the closest successful examples.

    Attributes:
        rows: Indices of the items in the system's batch.
        label: (R,) class that each item is to leave.
        found: (R, *S) closest successful example, or the item if there is none.
        distance: (R,) L2 distance of ``found``; infinite where there is no successful example.
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
        """Return the positions in ``rows`` of the items with a successful example."""
        return [i for i, d in enumerate(self.distance.tolist()) if d < torch.inf]

    def forward(self, x: Tensor) -> Tensor:
        if self.system.exhausted:
            raise QueriesExhausted
        logits: Tensor = self.system(x, self.rows)
        distance = (x - self.clean).flatten(1).norm(dim=1)
        closer = (logits.argmax(dim=1) != self.label) & (distance < self.distance)
        self.found[closer], self.distance[closer] = x[closer], distance[closer]
        return logits


def _require_queries(queries: int) -> None:
    if queries < 1:
        raise AttackError(f"queries is {queries}, expected ≥ 1")
