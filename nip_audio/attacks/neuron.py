"""The NIP paper's adaptive attacks, which look at the influence of neurons: S-ALA and R-ALA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from nip_audio.attacks.base import Attack, Norm, System, require_eps
from nip_audio.attacks.objectives import Identification, OpenSetIdentification
from nip_audio.core.influence import select_neurons
from nip_audio.errors import AttackError

__all__ = ["NEURON_ATTACKS", "NeuronAttack", "head_influence"]

NEURON_ATTACKS: tuple[str, ...] = ("s-ala", "r-ala")


@dataclass(frozen=True)
class NeuronAttack(Attack):
    """PGD on the loss of the decision and on what NIP looks at.

    ``s-ala`` keeps the influence σ of all neurons as it was while the decision changes, so that the
    purifier picks the candidate of the wrong class (NIP, Eq. 11): it minimises
    MSE(σ(x), σ(x*)) − λ·CE. ``r-ala`` changes the influence of the remaining neurons, by which
    candidates are matched (NIP, Eq. 12): it maximises MSE over these + λ·CE.

    The neurons are those of the embedding, which is the layer before the head that NIP taps, and
    σ is of the score (a logit, or a cosine) of the class that the clean input is named.

    Deviation: influence is of the score, not of the confidence, whose gradient vanishes; the start
    is random and steps are of the gradient's sign, as in PGD.

    Attributes:
        method: ``s-ala`` or ``r-ala``.
        eps: Largest change of a value, in units of the input.
        steps: Steps.
        step_share: Size of a step as a share of ε.
        weight: λ.
        front: Neurons that are not remaining because they influence most.
        tail: Neurons that are not because they influence least.

    Raises:
        AttackError: If a setting makes no sense.
    """

    method: str
    eps: float
    steps: int = 10
    step_share: float = 0.2
    weight: float = 1.0
    front: int = 5
    tail: int = 5

    white_box: ClassVar[bool] = True
    norm: ClassVar[Norm] = "linf"

    def __post_init__(self) -> None:
        """Check."""
        if self.method not in NEURON_ATTACKS:
            raise AttackError(f"method is {self.method!r}, expected one of {NEURON_ATTACKS}")
        require_eps(self.eps)
        if self.steps < 1 or not self.step_share > 0 or self.weight < 0:
            raise AttackError(
                f"steps is {self.steps}, step_share {self.step_share} and weight {self.weight}, "
                "expected ≥ 1, > 0 and ≥ 0"
            )

    @property
    def name(self) -> str:
        """Name in the registry."""
        return self.method

    @property
    def limit(self) -> float:
        """ε."""
        return self.eps

    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        objective = system.objective
        head = objective.model.head
        closed_set = isinstance(objective, Identification) and not isinstance(
            objective, OpenSetIdentification
        )
        if not closed_set or head is None or system.targeted:
            raise AttackError(
                f"{self.name} is for identification, untargeted, in a closed set, by a model with "
                "a head; use pgd-e2e for other goals"
            )
        clean = system.batch.x
        with torch.no_grad():
            embedding = system.embed(clean)
        named = head(embedding).argmax(dim=1)
        before = head_influence(head, embedding, named).detach()
        parts = select_neurons(before, front=self.front, tail=self.tail)
        x = clean + self.eps * (2 * torch.rand(clean.shape, generator=generator).to(clean) - 1)
        x = system.bounds.clip(x)
        for _ in range(self.steps):
            x = x.detach().requires_grad_(True)
            embedding = system.embed(x)
            logits = objective.model.logits(objective.model.score_embeddings(embedding))
            wrong = nn.functional.cross_entropy(logits, system.label, reduction="none")
            change = (head_influence(head, embedding, named) - before).square()
            gain = (
                self.weight * wrong - change.mean(dim=1)
                if self.method == "s-ala"
                else self.weight * wrong + change.gather(1, parts.remaining).mean(dim=1)
            )
            (gradient,) = torch.autograd.grad(gain.sum(), x)
            x = x.detach() + self.step_share * self.eps * gradient.sign()
            x = system.bounds.clip(clean + (x - clean).clamp(-self.eps, self.eps))
        return x


def head_influence(head: nn.Module, embeddings: Tensor, target: Tensor) -> Tensor:
    """σ = (∂y/∂φ)∘φ of the neurons φ that the head looks at (NIP, Eq. 2), in the autograd graph.

    Args:
        head: (B, D) → (B, C).
        embeddings: (B, D) neurons.
        target: (B,) class whose score y is.

    Returns:
        (B, D).
    """
    phi = embeddings if embeddings.requires_grad else embeddings.detach().requires_grad_(True)
    y = head(phi).gather(1, target[:, None]).sum()
    (gradient,) = torch.autograd.grad(y, phi, create_graph=True)
    return gradient * phi
