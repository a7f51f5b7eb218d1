"""The adaptive attacks of the NIP paper, S-ALA and R-ALA, which control the influence of neurons.

NIP is neuron-level inverse perturbation (Chen et al., arXiv 2112.13060).
"""

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
    """PGD on the loss of the decision and on the influence of neurons that NIP measures.

    ``s-ala`` keeps the influence σ of all neurons constant while the decision changes, so that the
    purifier picks the candidate of the wrong class (NIP, Eq. 11): it minimises
    MSE(σ(x), σ(x*)) − λ·CE. ``r-ala`` changes the influence of the remaining neurons, which are
    used to match candidates (NIP, Eq. 12): it maximises MSE over these + λ·CE. MSE is the mean
    squared error and CE the cross-entropy.

    The neurons are those of the embedding, the layer before the head that NIP taps. σ is the
    influence on the score (a logit or a cosine) of the model's prediction for the clean input.

    Deviation: influence is taken on the score, not on the confidence, whose gradient vanishes; the
    start is random and steps follow the sign of the gradient, as in PGD.

    Attributes:
        method: Either ``s-ala`` or ``r-ala``.
        eps: Largest change of a value, in units of the input.
        steps: Number of steps.
        step_share: Size of a step as a share of ε.
        weight: Weight λ of the cross-entropy.
        front: Number of most influential neurons, which are not among the remaining ones.
        tail: Number of least influential neurons, which are not among the remaining ones.

    Raises:
        AttackError: If a setting is out of range.
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
        """Validate the settings."""
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
        """Largest change of a value, in units of the input."""
        return self.eps

    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        objective = system.objective
        head = objective.model.head
        closed_set = isinstance(objective, Identification) and not isinstance(
            objective, OpenSetIdentification
        )
        if not closed_set or head is None or system.targeted:
            raise AttackError(
                f"{self.name} is for untargeted closed-set identification by a model with a head, "
                "and got another goal or model; use pgd-e2e for other goals"
            )
        clean = system.batch.x
        with torch.no_grad():
            embedding = system.embed(clean)
        predicted = head(embedding).argmax(dim=1)
        before = head_influence(head, embedding, predicted).detach()
        parts = select_neurons(before, front=self.front, tail=self.tail)
        x = clean + self.eps * (2 * torch.rand(clean.shape, generator=generator).to(clean) - 1)
        x = system.bounds.clip(x)
        for _ in range(self.steps):
            x = x.detach().requires_grad_(True)
            embedding = system.embed(x)
            logits = objective.model.logits(objective.model.score_embeddings(embedding))
            wrong = nn.functional.cross_entropy(logits, system.label, reduction="none")
            change = (head_influence(head, embedding, predicted) - before).square()
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
    """Return σ = (∂y/∂φ)∘φ of the input neurons φ of the head (NIP, Eq. 2), in the autograd graph.

    Args:
        head: Classifier (B, D) → (B, C).
        embeddings: (B, D) activations φ of the neurons.
        target: (B,) class whose score is y.

    Returns:
        (B, D) influence of each neuron.
    """
    phi = embeddings if embeddings.requires_grad else embeddings.detach().requires_grad_(True)
    y = head(phi).gather(1, target[:, None]).sum()
    (gradient,) = torch.autograd.grad(y, phi, create_graph=True)
    return gradient * phi
