"""Gradient-based parts of AutoAttack, on a batch: APGD (Croce & Hein 2020) and FAB (2020)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nip_audio.attacks._art import margin_of
from nip_audio.attacks.base import System
from nip_audio.core.adapter import Bounds

Loss = Callable[[Tensor], Tensor]
"""Maps logits (B, C) to what the attacker raises, (B,)."""

# values of the papers
_MOMENTUM = 0.75
_RISING = 0.75  # least share of steps that must raise the loss, else the step is halved
_FIRST_CHECK, _SHORTER, _LEAST_INTERVAL = 0.22, 0.03, 0.06  # checkpoints, as shares of all steps
_OVERSHOOT = 1.05
_PULL = 0.1  # largest weight of the step from the clean item
_BACK = 0.9  # how far an example that succeeds stays from the clean item


def cross_entropy(system: System) -> Loss:
    """Return the cross-entropy: with the label to leave, or its negative with the one to reach."""

    def loss(logits: Tensor) -> Tensor:
        value = torch.nn.functional.cross_entropy(logits, system.label, reduction="none")
        return -value if system.targeted else value

    return loss


def logits_ratio(system: System, target: Tensor) -> Loss:
    """Return the targeted difference of logits ratio (Croce & Hein 2020, Eq. 9).

    The ratio needs the third and the fourth highest logit; with fewer than four classes it is the
    difference alone. For a goal with a target, the class to leave is the strongest other one.
    """
    raised = difference(system, target)

    def loss(logits: Tensor) -> Tensor:
        if logits.shape[1] < 4:
            return raised(logits)
        best = logits.topk(4, dim=1).values
        return raised(logits) / (best[:, 0] - (best[:, 2] + best[:, 3]) / 2 + 1e-12)

    return loss


def difference(system: System, target: Tensor) -> Loss:
    """Return the logit of a target (B,) above that of the class to leave."""

    def loss(logits: Tensor) -> Tensor:
        if system.targeted:
            return margin_of(logits, target, targeted=True)
        return (logits.gather(1, target[:, None]) - logits.gather(1, system.label[:, None]))[:, 0]

    return loss


def rivals(system: System, count: int) -> list[Tensor]:
    """Return the targets to try, (B,) each: the goal's own, or the most likely other classes."""
    if system.targeted:
        return [system.label]
    with torch.no_grad():
        logits = system(system.batch.x)
    others = logits.scatter(1, system.label[:, None], -torch.inf)
    return list(others.topk(min(count, logits.shape[1] - 1), dim=1).indices.T)


def apgd(
    system: System, loss: Loss, *, eps: float, steps: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Attack a batch by automatic projected gradient descent from one random start.

    Returns:
        Examples (B, *S), and (B,) for which of them the attack succeeds.
    """
    clean, bounds = system.batch.x, system.bounds

    def project(x: Tensor) -> Tensor:
        return bounds.clip(clean + (x - clean).clamp(-eps, eps))

    def climb(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = x.detach().requires_grad_(True)
        logits = system(x)
        value = loss(logits)
        (slope,) = torch.autograd.grad(value.sum(), x)
        hit = (logits.argmax(dim=1) == system.label) == system.targeted
        return value.detach(), slope, hit

    x = project(clean + eps * (2 * torch.rand(clean.shape, generator=generator).to(clean) - 1))
    value, slope, done = climb(x)
    best, best_value, best_slope, found = x, value, slope, x
    previous, before, halved = x, value, torch.zeros_like(done)
    step = torch.full_like(value, 2 * eps)
    rises, last_check, checks = torch.zeros_like(value), 0, _checkpoints(steps)
    for number in range(1, steps + 1):
        if bool(done.all()):
            break
        ahead = project(x + _wide(step, x).to(x) * slope.sign())
        if number > 1:
            ahead = project(x + _MOMENTUM * (ahead - x) + (1 - _MOMENTUM) * (x - previous))
        previous, x, old = x, ahead, value
        value, slope, hit = climb(x)
        found = torch.where(_wide(hit & ~done, x), x, found)
        done = done | hit
        rises = rises + (value > old)
        better = value > best_value
        best, best_slope = _choose(better, x, best), _choose(better, slope, best_slope)
        best_value = torch.where(better, value, best_value)
        if number in checks:
            idle = ~halved & (best_value <= before)
            halved = idle | (rises < _RISING * (number - last_check))
            step = torch.where(halved, step / 2, step)
            x, slope = _choose(halved, best, x), _choose(halved, best_slope, slope)
            value = torch.where(halved, best_value, value)
            before, last_check, rises = best_value, number, torch.zeros_like(rises)
    return found, done


def _checkpoints(steps: int) -> set[int]:
    """Return the steps after which APGD looks at its progress, closer and closer."""
    shares = [0.0, _FIRST_CHECK]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - _SHORTER, _LEAST_INTERVAL))
    return {round(share * steps) for share in shares[1:]}


def fab(system: System, value_of: Loss, *, eps: float, steps: int) -> tuple[Tensor, Tensor]:
    """Attack a batch by the fast adaptive boundary attack, which minimises the change (L∞).

    Each step goes to the linearised boundary, both from the example and from the clean item, and an
    example that succeeds is drawn back to the clean item. The search ends at a change of ε.

    Args:
        system: System under attack, with the whole batch.
        value_of: Value of the logits that is zero on the boundary.
        eps: Largest change that counts.
        steps: Number of steps.

    Returns:
        Examples (B, *S), and (B,) for which of them the attack succeeds within ε.
    """
    clean, bounds = system.batch.x, system.bounds
    x = found = clean
    done = torch.zeros(len(clean), dtype=torch.bool, device=clean.device)
    for _ in range(steps):
        x = x.detach().requires_grad_(True)
        value = value_of(system(x))
        (slope,) = torch.autograd.grad(value.sum(), x)
        x, value = x.detach(), value.detach().to(x)
        level = (slope * x).flatten(1).sum(dim=1) - value
        own, other = (to_plane(start, slope, level, bounds) for start in (x, clean))
        lengths = [change.flatten(1).abs().amax(dim=1) for change in (own, other)]
        pull = (lengths[0] / (lengths[0] + lengths[1]).clamp_min(1e-12)).clamp_max(_PULL)
        pull = _wide(pull, x)
        x = bounds.clip((1 - pull) * (x + _OVERSHOOT * own) + pull * (clean + _OVERSHOOT * other))
        hit = system.fooled(x)
        near = (x - clean).flatten(1).abs().amax(dim=1) <= eps
        found = _choose(hit & near & ~done, x, found)
        done = done | (hit & near)
        if bool(done.all()):
            break
        x = _choose(hit, clean + _BACK * (x - clean), x)
    return found, done


def to_plane(x: Tensor, slope: Tensor, level: Tensor, bounds: Bounds) -> Tensor:
    """Return the smallest change (L∞) that brings each item to its plane, within the bounds.

    Args:
        x: (B, *S) items.
        slope: (B, *S) normal vectors of the planes.
        level: (B,) value of slope · x on the plane.
        bounds: Range of valid values.

    Returns:
        (B, *S) changes; of an item that cannot reach its plane, the one that comes closest.
    """
    flat, normal = x.flatten(1), slope.flatten(1)
    gap = level - (normal * flat).sum(dim=1)
    direction = normal.sign() * gap.sign()[:, None]
    room = torch.where(direction > 0, bounds.high - flat, flat - bounds.low).clamp_min(0)
    # a change of r moves slope · x by Σ |slope| min(r, room), which is linear between the rooms
    room, order = room.sort(dim=1)
    weight = normal.abs().gather(1, order)
    used = torch.cumsum(weight * room, dim=1)
    free = (weight.sum(dim=1, keepdim=True) - torch.cumsum(weight, dim=1)).clamp_min(0)
    place = torch.searchsorted(used + room * free, gap.abs()[:, None])
    last = place.clamp_max(room.shape[1] - 1)
    spent = (used - weight * room).gather(1, last)
    radius = (gap.abs()[:, None] - spent) / (free + weight).gather(1, last).clamp_min(1e-12)
    radius = torch.minimum(radius.clamp_min(0), room[:, -1:])
    limit = torch.empty_like(room).scatter(1, order, torch.minimum(room, radius))
    return (direction * limit).reshape(x.shape)


def _wide(values: Tensor, x: Tensor) -> Tensor:
    """Shape one value per item (B,) so that it broadcasts over the items."""
    return values.reshape(-1, *[1] * (x.dim() - 1))


def _choose(mask: Tensor, x: Tensor, other: Tensor) -> Tensor:
    return torch.where(_wide(mask, x), x, other)
