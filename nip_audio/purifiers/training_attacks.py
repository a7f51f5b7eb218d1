"""Approximate, batched and cheap attacks with which a defender trains a purifier.

They are families, not copies of the attacks that a purifier is tested with: those run longer, come
from other libraries, and some belong to no family used in training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel

__all__ = ["FAMILIES", "ModelUnderAttack", "attack_once"]


@dataclass(frozen=True)
class ModelUnderAttack:
    """A model to attack, with a clean batch and the model's response to it.

    Attributes:
        model: Frozen model that takes ``batch``, possibly behind a purifier.
        batch: Clean items, masked.
        embeddings: (B, D) embeddings of the clean items.
        predictions: (B,) predictions for the clean items; None for a bare embedding model.
    """

    model: InstrumentedModel
    batch: Batch
    embeddings: Tensor
    predictions: Tensor | None

    def embed(self, x: Tensor) -> Tensor:
        """Embed values of shape (B, *S): (B, D)."""
        batch = self.batch.with_x(x)
        return self.model.embed(batch.with_x(batch.masked()))

    def loss(self, x: Tensor, *, by_class: bool) -> Tensor:
        """Measure how far the model's response is from its response to the clean items, (B,).

        Args:
            x: (B, *S) attacked values.
            by_class: Whether to measure the cross-entropy against the clean prediction; otherwise,
                and for a bare embedding model, the cosine distance between embeddings.
        """
        embeddings = self.embed(x)
        if by_class and self.predictions is not None:
            logits = self.model.logits(self.model.score_embeddings(embeddings))
            return nn.functional.cross_entropy(logits, self.predictions, reduction="none")
        return 1 - nn.functional.cosine_similarity(embeddings, self.embeddings)

    def fooled(self, x: Tensor) -> Tensor:
        """Return which items change their prediction or, without a head, their voice: (B,) bool."""
        with torch.no_grad():
            embeddings = self.embed(x)
            if self.predictions is None:
                return nn.functional.cosine_similarity(embeddings, self.embeddings) < _FAR
            changed: Tensor = (
                self.model.score_embeddings(embeddings).argmax(dim=1) != self.predictions
            )
            return changed


_FAR = 0.4  # cosine below which two embeddings hardly pass as the same speaker

Family = Callable[[ModelUnderAttack, Tensor, bool, torch.Generator], Tensor]


def attack_once(
    victim: ModelUnderAttack,
    family: str,
    eps: Tensor,
    *,
    by_class: bool,
    generator: torch.Generator,
) -> Tensor:
    """Attack every item of a batch with one family of attacks.

    Args:
        victim: Model under attack, with the clean batch.
        family: Name of the family, one of ``FAMILIES``.
        eps: (B,) strengths in units of the input; the quantity that ε bounds depends on the family.
        by_class: Whether the prediction is attacked rather than the embedding, as in
            ``ModelUnderAttack.loss``.
        generator: Source of randomness, on the CPU.

    Returns:
        (B, *S) attacked values within the model's bounds, detached; padding is zero.
    """
    shape = (-1, *[1] * (victim.batch.x.dim() - 1))
    with torch.enable_grad():
        x = FAMILIES[family](victim, eps.to(victim.batch.x).reshape(shape), by_class, generator)
    batch = victim.batch.with_x(victim.model.bounds.clip(x.detach()))
    return batch.masked()


def _gradient(victim: ModelUnderAttack, x: Tensor, by_class: bool) -> Tensor:
    x = x.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(victim.loss(x, by_class=by_class).sum(), x)
    return gradient


def _nearby(victim: ModelUnderAttack, eps: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random point of the ball: at the clean item itself the angle has no gradient."""
    clean = victim.batch.x
    return victim.model.bounds.clip(clean + eps * _uniform(clean, generator))


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return 2 * torch.rand(like.shape, generator=generator).to(like) - 1


def _pick(choices: tuple[int, ...], generator: torch.Generator) -> int:
    return choices[int(torch.randint(len(choices), (1,), generator=generator))]


def _ball(
    victim: ModelUnderAttack, eps: Tensor, by_class: bool, generator: torch.Generator
) -> Tensor:
    """Take signed gradient steps in a ball: one (FGSM), or several from a random start (PGD)."""
    clean = victim.batch.x
    steps = _pick((1, 2, 5), generator)
    x = _nearby(victim, eps if steps > 1 else 0.1 * eps, generator)
    size = eps if steps == 1 else 2.5 * eps / steps
    for _ in range(steps):
        x = x.detach() + size * _gradient(victim, x, by_class).sign()
        x = victim.model.bounds.clip(clean + torch.maximum(torch.minimum(x - clean, eps), -eps))
    return x


def _estimated(
    victim: ModelUnderAttack, eps: Tensor, by_class: bool, generator: torch.Generator
) -> Tensor:
    """Follow a noisy gradient, as an attacker who only sees scores would estimate it."""
    clean, x = victim.batch.x, _nearby(victim, 0.1 * eps, generator)
    for _ in range(2):
        gradient = _gradient(victim, x, by_class)
        spread = gradient.flatten(1).square().mean(dim=1).sqrt().reshape(eps.shape)
        noise = torch.randn(x.shape, generator=generator).to(x)
        x = x.detach() + eps * (gradient + 2 * spread * noise).sign()
        x = victim.model.bounds.clip(clean + torch.maximum(torch.minimum(x - clean, eps), -eps))
    return x


def _smallest(
    victim: ModelUnderAttack, eps: Tensor, by_class: bool, generator: torch.Generator
) -> Tensor:
    """Find the smallest change along the gradient that fools the model (DeepFool, C&W)."""
    gradient = _gradient(victim, _nearby(victim, 0.1 * eps, generator), by_class)
    return _to_the_boundary(victim, _unit(gradient), 2 * eps, generator)


def _by_decisions(
    victim: ModelUnderAttack, eps: Tensor, by_class: bool, generator: torch.Generator
) -> Tensor:
    """Find the smallest change along a very noisy gradient, as a decision-based attack would."""
    x = _nearby(victim, 0.1 * eps, generator)
    gradient = _unit(_gradient(victim, x, by_class))
    noise = _unit(torch.randn(x.shape, generator=generator).to(x))
    share = 1 + 4 * torch.rand(eps.shape, generator=generator).to(x)
    return _to_the_boundary(victim, _unit(gradient + share * noise), 8 * eps, generator)


def _unit(x: Tensor) -> Tensor:
    """Scale each item to a root mean square of 1."""
    rms = x.flatten(1).square().mean(dim=1).sqrt().clamp_min(1e-12)
    return x / rms.reshape(-1, *[1] * (x.dim() - 1))


def _to_the_boundary(
    victim: ModelUnderAttack, direction: Tensor, farthest: Tensor, generator: torch.Generator
) -> Tensor:
    """Bisect a direction six times, and stop a little beyond the decision boundary.

    An item that is not fooled even at the farthest point stays unchanged.
    """
    clean, bounds = victim.batch.x, victim.model.bounds

    def moved(share: Tensor) -> Tensor:
        return bounds.clip(clean + share.reshape(farthest.shape) * farthest * direction)

    low, high = torch.zeros(len(clean)).to(clean), torch.ones(len(clean)).to(clean)
    reached = victim.fooled(moved(high))
    for _ in range(6):
        middle = (low + high) / 2
        hit = victim.fooled(moved(middle))
        low, high = torch.where(hit, low, middle), torch.where(hit, middle, high)
    past = 1 + 0.5 * torch.rand(len(clean), generator=generator).to(clean)
    return moved(torch.where(reached, (high * past).clamp_max(1.0), 0.0))


def _sparse(
    victim: ModelUnderAttack, eps: Tensor, by_class: bool, generator: torch.Generator
) -> Tensor:
    """Move the few values of largest gradient all the way to a bound (JSMA)."""
    clean, bounds = victim.batch.x, victim.model.bounds
    values = clean[0].numel()
    count = max(1, int(values * 10 ** (-3.5 + 2 * float(torch.rand(1, generator=generator)))))
    x = clean
    for part in range(2):
        gradient = _gradient(victim, x + 0.1 * eps * _uniform(x, generator), by_class).flatten(1)
        chosen = gradient.abs().topk(max(1, count // (2 - part)), dim=1).indices
        bound = torch.where(gradient.gather(1, chosen) > 0, bounds.high, bounds.low)
        x = x.flatten(1).scatter(1, chosen, bound.to(x)).reshape(x.shape).detach()
    return x


def _universal(
    victim: ModelUnderAttack, eps: Tensor, by_class: bool, generator: torch.Generator
) -> Tensor:
    """Find one change for the whole batch."""
    clean = victim.batch.x
    strength = eps.mean()
    change = strength * _uniform(clean[:1], generator)
    for _ in range(3):
        gradient = _gradient(victim, clean + change, by_class).sum(dim=0, keepdim=True)
        change = (change + strength * gradient.sign()).clamp(-strength, strength)
    return clean + change


FAMILIES: Mapping[str, Family] = {
    "gradient": _ball,
    "minimum": _smallest,
    "sparse": _sparse,
    "score": _estimated,
    "decision": _by_decisions,
    "universal": _universal,
}
"""Families of attacks by name: L∞ gradient steps, the smallest change, few values, a gradient
estimated from scores, decisions only, and one change for all items."""
