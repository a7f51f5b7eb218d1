"""FAKEBOB: a black-box attack on speaker recognition that needs only scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nip_audio.attacks._art import margin_of
from nip_audio.attacks.base import Attack, Norm, System, require_eps
from nip_audio.attacks.objectives import Verification
from nip_audio.attacks.start import break_ties
from nip_audio.core.adapter import Batch
from nip_audio.errors import AttackError

__all__ = ["Fakebob", "ThresholdEstimate", "estimate_threshold"]

# Inputs scored in one forward pass. On a CPU, large batches return their memory to the system after
# every pass: the shipped x-vector takes 4.2 ms per clip of 2 s in batches of 16, 7.8 ms in 256s.
_ROWS_CPU, _ROWS = 16, 256

_DRAWS = 5
"""Number of answers that a success is confirmed by, if they differ."""

_SAME = 1e-5
"""Largest difference of two answers that rounding makes."""


@dataclass(frozen=True)
class Fakebob(Attack):
    """Signed steps along a gradient estimated from scores (Chen et al. 2021).

    The gradient is estimated by natural evolution strategies (NES). The attack raises the margin
    between the score of the label and the best other score above 0. An item stops as soon as the
    attack succeeds on it, and costs at most ``steps`` · (``samples`` + 1) queries. In verification
    and open-set identification the margin depends on the threshold: an attacker who does not know
    it finds it with ``estimate_threshold`` first.

    A recording that is attacked against itself is first moved by a random step. If the estimate at
    the start is exactly zero, a random direction is used, because the true gradient is unknown.

    Deviation: the learning rate is halved after five iterations without a new best margin; the
    authors' program compares the last of five losses with the first.

    Attributes:
        eps: Largest change of a value, in units of the input.
        steps: Largest number of iterations.
        samples: Number of inputs per estimate, in pairs of opposite sign.
        sigma: Standard deviation of the search directions, in units of the input.
        momentum: Share of the previous estimates in the step direction.
        learning_rate: Initial step size, in units of the input.
        least_rate: Smallest step size, in units of the input.
        patience: Number of iterations without progress after which the step size is halved.

    Raises:
        AttackError: If a setting is out of range.
    """

    eps: float
    steps: int = 1000
    samples: int = 50
    sigma: float = 0.001
    momentum: float = 0.9
    learning_rate: float = 0.001
    least_rate: float = 1e-6
    patience: int = 5

    white_box: ClassVar[bool] = False
    norm: ClassVar[Norm] = "linf"

    def __post_init__(self) -> None:
        """Validate the settings."""
        require_eps(self.eps)
        if min(self.steps, self.patience) < 1 or self.samples < 2 or self.samples % 2:
            raise AttackError(
                f"steps is {self.steps}, patience {self.patience} and samples {self.samples}, "
                "expected ≥ 1, ≥ 1 and an even number ≥ 2"
            )
        if min(self.sigma, self.learning_rate, self.least_rate) <= 0 or not 0 <= self.momentum < 1:
            raise AttackError(
                f"sigma is {self.sigma}, rates {self.learning_rate} and {self.least_rate}, "
                f"momentum {self.momentum}; expected > 0 each, and 0 ≤ momentum < 1"
            )

    @property
    def name(self) -> str:
        """Name in the registry."""
        return "fakebob"

    @property
    def limit(self) -> float:
        """Largest change of a value, in units of the input."""
        return self.eps

    @property
    def starts_at_input(self) -> bool:
        """True: the first gradient is estimated at the input."""
        return True

    @torch.no_grad()
    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        clean = system.batch.x
        x = clean.clone()
        search = _Search(self, len(clean))
        velocity = torch.zeros_like(clean)
        for step in range(self.steps):
            rows = [i for i in range(len(clean)) if search.active[i]]
            reached = _confirmed(system, x[rows], rows)
            search.judge(rows, reached)
            rows = [i for i in rows if search.active[i]]
            if not rows:
                break
            gradient = nes_gradient(
                system, x[rows], rows, samples=self.samples, sigma=self.sigma, generator=generator
            )
            if step == 0:
                gradient = break_ties(gradient, generator)
            velocity[rows] = self.momentum * velocity[rows] + (1 - self.momentum) * gradient
            rate = search.rate[rows].to(clean).reshape(-1, *[1] * (clean.dim() - 1))
            moved = x[rows] + rate * velocity[rows].sign()
            near = clean[rows] + (moved - clean[rows]).clamp(-self.eps, self.eps)
            x[rows] = system.bounds.clip(near)
        return x


class _Search:
    """State of the search: the items still attacked, and their step sizes."""

    def __init__(self, attack: Fakebob, count: int) -> None:
        self.attack = attack
        self.active = [True] * count
        self.rate = torch.full((count,), attack.learning_rate, dtype=torch.float64)
        self.best = torch.full((count,), -torch.inf, dtype=torch.float64)
        self.waited = torch.zeros(count, dtype=torch.long)

    def judge(self, rows: list[int], reached: Tensor) -> None:
        """Record margins (R,): a positive one ends the item, lack of progress halves its step."""
        for row, margin in zip(rows, reached.tolist(), strict=True):
            if margin > 0:
                self.active[row] = False
            elif margin > float(self.best[row]):
                self.best[row], self.waited[row] = margin, 0
            else:
                self.waited[row] += 1
                if int(self.waited[row]) >= self.attack.patience:
                    self.waited[row] = 0
                    slower = float(self.rate[row]) / 2
                    self.rate[row] = max(slower, self.attack.least_rate)


def _confirmed(system: System, x: Tensor, rows: list[int]) -> Tensor:
    """Return the margins, where positive as the median of several draws.

    A defence that draws noise is wrong about any input now and then: one draw is no success. A
    system that answers the same twice is not asked again.
    """
    reached = margins(system, x, rows)
    hits = [place for place, margin in enumerate(reached.tolist()) if margin > 0]
    draws = [reached[hits]]
    owners = [rows[place] for place in hits]
    while hits and len(draws) < _DRAWS:
        draws.append(margins(system, x[hits], owners))
        if len(draws) == 2 and torch.allclose(draws[0], draws[1], rtol=_SAME, atol=_SAME):
            return reached
    if hits:
        reached = reached.clone()
        reached[hits] = torch.stack(draws).median(dim=0).values
    return reached


@torch.no_grad()
def margins(system: System, x: Tensor, rows: list[int]) -> Tensor:
    """Return the attacker's margin of each variant, (R,); the attack succeeds where positive."""
    size = _ROWS_CPU if x.device.type == "cpu" else _ROWS
    parts = zip(range(0, len(x), size), torch.split(x, size), strict=True)
    scores = [system.scores(part, rows[start : start + len(part)]) for start, part in parts]
    return margin_of(torch.cat(scores), system.label[rows], targeted=system.targeted)


@torch.no_grad()
def nes_gradient(
    system: System,
    x: Tensor,
    rows: list[int],
    *,
    samples: int,
    sigma: float,
    generator: torch.Generator,
) -> Tensor:
    """Estimate the gradient of the margins from scores (NES, Ilyas et al. 2018).

    Args:
        system: System under attack, which returns the scores.
        x: (R, *S) points at which the gradient is estimated.
        rows: Index of the item that each row is a variant of.
        samples: Number of inputs per estimate, in pairs of opposite sign.
        sigma: Standard deviation of the search directions, in units of the input.
        generator: Generator of the search directions.

    Returns:
        (R, *S) estimates of the gradient.
    """
    pairs = samples // 2
    shape = (len(x), pairs, *x.shape[1:])
    directions = torch.randn(shape, generator=generator).to(x)
    step = sigma * directions
    both = torch.stack([x[:, None] + step, x[:, None] - step], dim=2)
    variants = system.bounds.clip(both.flatten(0, 2))
    owners = [row for row in rows for _ in range(samples)]
    reached = margins(system, variants, owners).reshape(len(x), pairs, 2)
    slope = ((reached[..., 0] - reached[..., 1]) / (2 * sigma)).to(x)
    weights = slope.reshape(*slope.shape, *[1] * (x.dim() - 1))
    return (weights * directions).mean(dim=1)


@dataclass(frozen=True)
class ThresholdEstimate:
    """An attacker's estimate of a verification threshold.

    Attributes:
        score: Accepted score closely above the threshold; None if no recording was accepted.
        queries: Number of inputs scored.
    """

    score: float | None
    queries: int


@torch.no_grad()
def estimate_threshold(
    objective: Verification,
    batch: Batch,
    *,
    eps: float,
    generator: torch.Generator,
    steps: int = 200,
) -> ThresholdEstimate:
    """Estimate the threshold of a verification system from scores and decisions (Chen et al. 2021).

    Like ``Fakebob``, this raises the score of a rejected recording until it is accepted; the
    threshold lies between the last two scores. The attacker sees scores and decisions, but never
    the threshold.

    Deviation: the paper's Algorithm 1 raises a target score in stages. The target cancels in the
    difference of two antithetic scores, and all steps have one size, so there are no stages here.

    Args:
        objective: Verification objective with goal ``accept``.
        batch: Batch of one recording that is rejected.
        eps: Largest change of a value during the estimate; the later attack has its own ε.
        generator: Generator of the search directions.
        steps: Largest number of iterations.

    Raises:
        AttackError: If the goal is not ``accept``, or if there are several recordings.
    """
    if objective.goal != "accept" or len(batch) != 1:
        raise AttackError(
            f"got {len(batch)} recordings and goal {objective.goal!r}, expected one recording and "
            "goal 'accept', because the threshold is approached from below; pass one recording and "
            "an objective with goal 'accept'"
        )
    attack = Fakebob(eps)
    # the threshold is subtracted from the scores here, and cancels in the estimate
    system = System(objective, batch)
    clean = system.batch.x
    x, velocity = clean.clone(), torch.zeros_like(clean)
    for asked in range(1, steps + 1):
        here = batch.with_x(batch.with_x(x).masked())
        if bool(objective.succeeded(here)[0]):
            return ThresholdEstimate(float(objective.scores(here)[0]), system.queries + asked)
        gradient = nes_gradient(
            system, x, [0], samples=attack.samples, sigma=attack.sigma, generator=generator
        )
        velocity = attack.momentum * velocity + (1 - attack.momentum) * gradient
        # small steps, because the overshoot of the last one is the error of the estimate
        moved = x + 0.1 * attack.learning_rate * velocity.sign()
        x = system.bounds.clip(clean + (moved - clean).clamp(-eps, eps))
    return ThresholdEstimate(None, system.queries + steps)
