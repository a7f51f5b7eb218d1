"""What an attacker wants, as a classification problem any attack library understands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, Self, get_args

import torch
from torch import Tensor, nn

from nip_audio.core.adapter import Batch
from nip_audio.core.model import CosineHead, InstrumentedModel
from nip_audio.errors import InputError

__all__ = [
    "Goal",
    "Guarded",
    "Identification",
    "Objective",
    "OpenSetIdentification",
    "Verification",
]

Goal = Literal["accept", "reject"]


class Objective(nn.Module, ABC):
    """Differentiable decision of a system under attack.

    ``logits(batch)`` is (B, C); ``label`` (B,) is the class the attacker wants to leave, or, when
    ``targeted``, the one he wants to reach. ``succeeded`` judges by the system's own rule.

    ``stationary_start`` says that the input itself is a maximum of the score that is to be lowered,
    so that its gradient there is nothing but rounding noise: attacks first step aside.
    """

    model: InstrumentedModel
    label: Tensor
    targeted: bool
    stationary_start: bool = False

    @abstractmethod
    def logits(self, batch: Batch) -> Tensor:
        """Score raw input: (B, C)."""

    @torch.no_grad()
    def decide(self, batch: Batch) -> Tensor:
        """Return the class that the system decides for: (B,)."""
        return self.logits(batch).argmax(dim=1)

    def succeeded(self, batch: Batch) -> Tensor:
        """Tell per item whether the attacker has what he wants: (B,) bool."""
        hit = self.decide(batch) == self.label
        return hit if self.targeted else ~hit

    @abstractmethod
    def select(self, rows: Sequence[int]) -> Self:
        """Return the objective of some items of the batch, in this order, repeats allowed."""


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

    def select(self, rows: Sequence[int]) -> Self:
        """Return the objective of some items."""
        return type(self)(self.model, self.label[list(rows)], targeted=self.targeted)


class OpenSetIdentification(Identification):
    """Open-set identification: the best of C enrolled speakers, or none of them (Chen et al. 2021).

    A recording is rejected when its best score is under the threshold. That is one class more, the
    last (index C), whose score is the threshold. Untargeted, the attacker wants another decision
    than ``label``: an enrolled speaker no longer to be recognised as himself, or, from C, a
    stranger to be taken for anybody. Targeted, he wants to be accepted as the speaker ``label``.

    Args:
        model: With a head of C enrolled voices: ``CosineHead`` or ``PldaHead``.
        label: (B,) own decisions, or targets, in 0 … C.
        threshold: Score, of the head's kind, from which the system accepts.
        targeted: Whether ``label`` is a target.
    """

    def __init__(
        self, model: InstrumentedModel, label: Tensor, *, threshold: float, targeted: bool = False
    ) -> None:
        """See the class."""
        super().__init__(model, label, targeted=targeted)
        self.threshold = threshold

    def logits(self, batch: Batch) -> Tensor:
        """Score raw input: (B, C + 1); at a tie with the threshold the speaker comes first."""
        scores = self.model.scores(batch)
        rejected = scores.new_full((len(scores), 1), self.threshold)
        return self.model.logits(torch.cat([scores, rejected], dim=1))

    def select(self, rows: Sequence[int]) -> Self:
        """Return the objective of some items."""
        return type(self)(
            self.model, self.label[list(rows)], threshold=self.threshold, targeted=self.targeted
        )


class Verification(Objective):
    """Speaker verification: a score against one voice an item, accepted from a threshold on.

    As two classes, (reject, accept), with logits (threshold − score, score − threshold): crossing
    the threshold is crossing the decision, and the gradient is the score's.

    Args:
        model: Any; its head is not used.
        references: (B, D) enrolled voice claimed by each item, or whatever ``back_end`` takes.
        threshold: Score from which the system accepts.
        goal: ``accept`` to be let in, ``reject`` to be kept out.
        back_end: Makes a head (B, D) → (B, B) of the references: cosine, or for PLDA
            ``functools.partial(PldaHead, plda)``.
        self_reference: Whether each reference is the embedding of the very item that is attacked.
    """

    def __init__(
        self,
        model: InstrumentedModel,
        references: Tensor | Sequence[Tensor],
        *,
        threshold: float,
        goal: Goal,
        back_end: Callable[..., nn.Module] = CosineHead,
        self_reference: bool = False,
    ) -> None:
        """See the class."""
        super().__init__()
        if goal not in get_args(Goal):
            raise InputError(f"goal is {goal!r}, expected one of {get_args(Goal)}")
        if isinstance(references, Tensor) and references.dim() < 2:
            raise InputError(f"references are {tuple(references.shape)}, expected (items, D)")
        self.model = model
        self.references = references
        self.threshold = threshold
        self.goal: Goal = goal
        self.back_end = back_end
        self.head = back_end(references)
        self.self_reference = self_reference
        self.stationary_start = self_reference and goal == "reject"
        self.targeted = True
        self.label = torch.full(
            (len(references),), int(goal == "accept"), device=references[0].device
        )

    def scores(self, batch: Batch) -> Tensor:
        """Score each item against its own reference: (B,)."""
        scores: Tensor = self.head(self.model.embed(batch))
        return scores.diagonal()

    def logits(self, batch: Batch) -> Tensor:
        """Score raw input: (B, 2)."""
        margin = self.scores(batch) - self.threshold
        return torch.stack([-margin, margin], dim=1)

    def select(self, rows: Sequence[int]) -> Self:
        """Return the objective of some items."""
        references = self.references
        return type(self)(
            self.model,
            references[list(rows)]
            if isinstance(references, Tensor)
            else [references[row] for row in rows],
            threshold=self.threshold,
            goal=self.goal,
            back_end=self.back_end,
            self_reference=self.self_reference,
        )


class Guarded(Objective):
    """A decision behind a detector: the attacker wants it, and not to be noticed.

    As two classes, (foiled, through), of which the second is the target. Its margin is the smaller
    of two: how far the decision has gone his way, in logits, and how far the detector is from an
    alarm, in units of ``scale``. So every step of an attack works on whichever is missing (after
    Carlini & Wagner 2017, and Bryniarski et al. 2022).

    Args:
        objective: The decision.
        evidence: Differentiable: raw batch → (B,), higher is more suspicious.
        threshold: Evidence above which the detector raises an alarm.
        scale: Evidence that weighs as much as one logit.
    """

    def __init__(
        self, objective: Objective, evidence: nn.Module, *, threshold: float, scale: float
    ) -> None:
        """See the class."""
        super().__init__()
        self.objective = objective
        self.evidence = evidence
        self.threshold = threshold
        self.scale = scale
        self.model = objective.model
        self.stationary_start = objective.stationary_start
        self.targeted = True
        self.label = torch.ones_like(objective.label)

    def logits(self, batch: Batch) -> Tensor:
        """Score raw input: (B, 2)."""
        logits = self.objective.logits(batch)
        label = self.objective.label[:, None]
        own = logits.gather(1, label)[:, 0]
        others = logits.scatter(1, label, -torch.inf).amax(dim=1)
        decision = own - others if self.objective.targeted else others - own
        unnoticed = (self.threshold - self.evidence(batch)) / self.scale
        margin = torch.minimum(decision, unnoticed.to(decision))
        return torch.stack([-margin, margin], dim=1)

    def select(self, rows: Sequence[int]) -> Self:
        """Return the objective of some items."""
        return type(self)(
            self.objective.select(rows), self.evidence, threshold=self.threshold, scale=self.scale
        )
