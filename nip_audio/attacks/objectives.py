"""What an attacker wants, as a classification problem any attack library understands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from nip_audio.core.adapter import Batch
from nip_audio.core.model import CosineHead, InstrumentedModel
from nip_audio.errors import InputError

__all__ = ["Goal", "Identification", "Objective", "Verification"]

Goal = Literal["accept", "reject"]


class Objective(nn.Module, ABC):
    """Differentiable decision of a system under attack.

    ``logits(batch)`` is (B, C); ``label`` (B,) is the class the attacker wants to leave, or, when
    ``targeted``, the one he wants to reach. ``succeeded`` judges by the system's own rule.
    """

    label: Tensor
    targeted: bool

    @abstractmethod
    def logits(self, batch: Batch) -> Tensor:
        """Score raw input: (B, C)."""

    @torch.no_grad()
    def succeeded(self, batch: Batch) -> Tensor:
        """Tell per item whether the attacker has what he wants: (B,) bool."""
        hit = self.logits(batch).argmax(dim=1) == self.label
        return hit if self.targeted else ~hit

    @abstractmethod
    def select(self, index: int) -> Objective:
        """Return the objective of one item of the batch."""


class Identification(Objective):
    """Closed-set identification: leave one's own label, or be taken for another speaker.

    Args:
        model: With a head of C classes.
        label: (B,) own labels, or targets.
        targeted: Whether ``label`` is a target.
    """

    def __init__(self, model: InstrumentedModel, label: Tensor, *, targeted: bool = False) -> None:
        """See the class."""
        super().__init__()
        if model.head is None:
            raise InputError("this model only embeds; attack it by Verification, or give it a head")
        self.model = model
        self.label = label
        self.targeted = targeted

    def logits(self, batch: Batch) -> Tensor:
        """Score raw input: (B, C)."""
        return self.model.logits(self.model.scores(batch))

    def select(self, index: int) -> Identification:
        """Return the objective of one item."""
        return Identification(self.model, self.label[index : index + 1], targeted=self.targeted)


class Verification(Objective):
    """Speaker verification: cosine to one voice an item, accepted from a threshold on.

    As two classes, (reject, accept), with logits (threshold − cosine, cosine − threshold): crossing
    the threshold is crossing the decision, and the gradient is the cosine's.

    Args:
        model: Any; its head is not used.
        references: (B, D) enrolled voice claimed by each item.
        threshold: Cosine from which the system accepts.
        goal: ``accept`` to be let in, ``reject`` to be kept out.
    """

    def __init__(
        self, model: InstrumentedModel, references: Tensor, *, threshold: float, goal: Goal
    ) -> None:
        """See the class."""
        super().__init__()
        if goal not in get_args(Goal):
            raise InputError(f"goal is {goal!r}, expected one of {get_args(Goal)}")
        if references.dim() != 2:
            raise InputError(f"references are {tuple(references.shape)}, expected (items, D)")
        self.model = model
        self.references = references
        self.threshold = threshold
        self.goal: Goal = goal
        self.targeted = True
        self.label = torch.full(
            (references.shape[0],), int(goal == "accept"), device=references.device
        )

    def cosines(self, batch: Batch) -> Tensor:
        """Score each item against its own reference: (B,)."""
        scores: Tensor = CosineHead(self.references)(self.model.embed(batch))
        return scores.diagonal()

    def logits(self, batch: Batch) -> Tensor:
        """Score raw input: (B, 2)."""
        margin = self.cosines(batch) - self.threshold
        return torch.stack([-margin, margin], dim=1)

    def select(self, index: int) -> Verification:
        """Return the objective of one item."""
        return Verification(
            self.model,
            self.references[index : index + 1],
            threshold=self.threshold,
            goal=self.goal,
        )
