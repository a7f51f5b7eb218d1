"""Start of an attack: a random step away from the input where the gradient there is zero."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.errors import AttackError

if TYPE_CHECKING:
    from nip_audio.attacks.base import Attack, System

__all__ = [
    "STEP_SHARE",
    "break_ties",
    "first_step",
    "flat_items",
    "derived_generator",
    "random_signs",
    "rows_to_move",
]

STEP_SHARE = 0.1
"""Length of the random first step as a share of ε.

Deviation: Tramèr et al. 2018 use one half. The step only has to leave the point of zero gradient,
and the rest of ε is worth more to the steps that follow.
"""

_TINY = 1e-4  # share of half the range of values, for attacks without ε: about three 16-bit steps


def rows_to_move(attack: Attack, system: System, generator: torch.Generator) -> list[int]:
    """Return the items that an attack must move by a random step before it follows gradients.

    There are two rules. First, an objective may state that its score has a maximum at the input
    (``Objective.stationary_start``). A computed gradient there is rounding noise, seldom exactly
    zero, so no threshold on the gradient could detect it. Second, with any objective, an item is
    moved if the gradient of its loss is exactly zero or NaN and the attack has not succeeded yet.
    All other items keep their start and their result.

    Args:
        attack: Attack to run. Only one that ``starts_at_input`` moves items, and only a white-box
            attack may use gradients.
        system: System under attack, with the whole batch. No query is counted.
        generator: Generator of the attack; its state does not change.

    Raises:
        AttackError: If a white-box attack gets no gradient at the inputs nor close to them.
    """
    count = len(system.batch)
    stuck = torch.full((count,), system.objective.stationary_start)
    if attack.white_box:
        flat, fooled = flat_items(system, system.batch.x)
        if bool(flat.all()):
            _require_gradient_beside(attack, system, generator)
        stuck = (flat.cpu() | stuck) & ~fooled.cpu()
    if not attack.starts_at_input:
        return []
    if attack.shared and bool(stuck.any()):
        return list(range(count))
    rows: list[int] = stuck.nonzero()[:, 0].tolist()
    return rows


def flat_items(system: System, x: Tensor) -> tuple[Tensor, Tensor]:
    """Tell where the gradient of the loss is zero, and where the attack succeeds: (B,) bool each.

    Args:
        system: System under attack, with the whole batch. No query is counted.
        x: (B, *S) variants of its items.
    """
    uncounted = type(system)(system.objective, system.batch)
    x = x.clone().requires_grad_(True)
    logits = uncounted(x)
    hit = logits.argmax(dim=1) == system.label
    loss = torch.nn.functional.cross_entropy(logits, system.label, reduction="sum")
    gradient = torch.autograd.grad(loss, x, allow_unused=True)[0] if loss.requires_grad else None
    if gradient is None:
        gradient = torch.zeros_like(x)
    flat = ~(gradient.flatten(1).abs().sum(dim=1) > 0)
    return flat, hit if system.targeted else ~hit


def first_step(
    attack: Attack, batch: Batch, bounds: Bounds, generator: torch.Generator
) -> tuple[Attack, Tensor]:
    """Take the random step of R+FGSM (Tramèr et al. 2018), and return the remaining attack.

    Every value moves by ±α. For an attack with an ε, α is ``STEP_SHARE`` · ε, and the attack goes
    on with ε − α around the new start, so that the whole change stays within ε. For an attack
    without one, α is a ten thousandth of half the range.

    Args:
        attack: Attack to run.
        batch: Items to move.
        bounds: Range of valid values.
        generator: Generator of the signs.

    Returns:
        The attack to run, and its start (B, *S), within the bounds and with zero padding.
    """
    if attack.limit is None:
        size = _TINY * (bounds.high - bounds.low) / 2
    else:
        size = STEP_SHARE * attack.limit
        left = {"eps": attack.limit - size}
        attack = replace(attack, **left)
    count = 1 if attack.shared else len(batch)
    signs = random_signs((count, *batch.x.shape[1:]), generator).to(batch.x)
    return attack, batch.with_x(bounds.clip(batch.x + size * signs)).masked()


def break_ties(slope: Tensor, generator: torch.Generator) -> Tensor:
    """Replace gradients (R, *S) that are exactly zero by random, negligibly short ones."""
    flat = slope.flatten(1).eq(0).all(dim=1)
    if not bool(flat.any()):
        return slope
    signs = random_signs(tuple(slope.shape), generator).to(slope)
    return torch.where(flat.reshape(-1, *[1] * (slope.dim() - 1)), 1e-12 * signs, slope)


def random_signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw a tensor of −1 and 1."""
    return 2 * torch.randint(2, shape, generator=generator) - 1


def derived_generator(generator: torch.Generator) -> torch.Generator:
    """Return a new generator derived from this one, whose state does not change."""
    seed = int(torch.randint(2**62, (1,), generator=generator.clone_state()))
    return torch.Generator().manual_seed(seed)


def _require_gradient_beside(attack: Attack, system: System, generator: torch.Generator) -> None:
    """Look for a gradient close to the inputs, because it may be truly zero at the inputs."""
    _, beside = first_step(attack, system.batch, system.bounds, derived_generator(generator))
    if bool(flat_items(system, beside)[0].all()):
        raise AttackError(
            "the system gives no gradient at this input, nor close to it, which a white-box "
            "attack needs; attack a differentiable model, or use an attack that needs scores or "
            "decisions alone, such as fakebob or hopskipjump"
        )
