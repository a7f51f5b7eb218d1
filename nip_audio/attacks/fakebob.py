"""FAKEBOB: a black-box attack on speaker recognition that needs scores alone."""

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

# Inputs scored in one forward pass. On a CPU memory of large batches goes back to the system after
# every pass: the shipped x-vector takes 4.2 ms a clip of 2 s in sixteens, 7.8 ms in 256s.
_ROWS_CPU, _ROWS = 16, 256


@dataclass(frozen=True)
class Fakebob(Attack):
    """Signed steps along a gradient estimated by NES (Chen et al. 2021).

    The margin between the label's score and the best other is driven over 0. Every item stops as
    soon as it fools, and costs at most ``steps`` · (``samples`` + 1) queries. Behind a threshold,
    as of verification or an open set, the margin needs the threshold's value: an attacker who does
    not know it finds it by ``estimate_threshold`` first.

    A recording that is attacked against itself is first moved by a random step, and an estimate of
    exactly zero at the start counts as a random direction: the gradient itself is not asked.

    Deviation: the learning rate is halved after five iterations without a new best margin; the
    authors' program compares the last of five losses with the first.

    Attributes:
        eps: Largest change of a value, in units of the input.
        steps: Iterations, at most.
        samples: Inputs an estimate, in pairs of opposite sign.
        sigma: Standard deviation of the search.
        momentum: Of the estimates.
        learning_rate: First step size, in units of the input.
        least_rate: Last one.
        patience: Iterations without progress after which the rate is halved.

    Raises:
        AttackError: If a setting makes no sense.
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
        """Check."""
        require_eps(self.eps)
        if min(self.steps, self.patience) < 1 or self.samples < 2 or self.samples % 2:
            raise AttackError(
                f"steps is {self.steps}, patience {self.patience} and samples {self.samples}, "
                "expected ≥ 1, ≥ 1 and an even number"
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
        """ε."""
        return self.eps

    @property
    def starts_at_input(self) -> bool:
        """Yes: it first estimates the slope at the input."""
        return True

    @torch.no_grad()
    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        clean = system.batch.x
        x = clean.clone()
        search = _Search(self, len(clean))
        velocity = torch.zeros_like(clean)
        for step in range(self.steps):
            rows = [i for i in range(len(clean)) if search.active[i]]
            reached = margins(system, x[rows], rows)
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
    """Which items are still searched, and how fast."""

    def __init__(self, attack: Fakebob, count: int) -> None:
        self.attack = attack
        self.active = [True] * count
        self.rate = torch.full((count,), attack.learning_rate, dtype=torch.float64)
        self.best = torch.full((count,), -torch.inf, dtype=torch.float64)
        self.waited = torch.zeros(count, dtype=torch.long)

    def judge(self, rows: list[int], reached: Tensor) -> None:
        """Take note of margins (R,): over 0 an item is done; without progress it slows down."""
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


@torch.no_grad()
def margins(system: System, x: Tensor, rows: list[int]) -> Tensor:
    """How far each variant's decision has gone the attacker's way: (R,), over 0 is success."""
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
        system: Whose scores.
        x: (R, *S) where.
        rows: Which item each is a variant of.
        samples: Inputs an estimate, in pairs of opposite sign.
        sigma: Standard deviation of the search.
        generator: Source of the directions.

    Returns:
        (R, *S).
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
    """What an attacker found out about a threshold.

    Attributes:
        score: From which the system accepts, close above the threshold; None if none was reached.
        queries: Inputs scored.
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
    """Find a verification system's threshold from its scores and its word (Chen et al. 2021).

    The score of a recording that is rejected is driven up, as ``Fakebob`` does it, until it is
    accepted: the threshold lies between the last two scores. The attacker sees scores and whether
    he is accepted, never the threshold.

    Deviation: the paper's Algorithm 1 raises a target score from stage to stage. In the difference
    of two antithetic scores a target cancels, and steps are of one size: there are no stages.

    Args:
        objective: To be accepted.
        batch: One recording that is not accepted yet.
        eps: How far the recording may be changed; the attack on it will be another.
        generator: Source of the search.
        steps: Iterations, at most.

    Raises:
        AttackError: If the goal is not to be accepted, or there are several recordings.
    """
    if objective.goal != "accept" or len(batch) != 1:
        raise AttackError(
            f"got {len(batch)} recordings and goal {objective.goal!r}; a threshold is found from "
            "below with one: give one recording and an objective of goal accept"
        )
    attack = Fakebob(eps)
    # its scores have the threshold in them, which cancels in an estimate
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
        # small steps: what the last one overshoots is the error of the estimate
        moved = x + 0.1 * attack.learning_rate * velocity.sign()
        x = system.bounds.clip(clean + (moved - clean).clamp(-eps, eps))
    return ThresholdEstimate(None, system.queries + steps)
