"""Goals of an attacker, stated as classification problems that every attack library understands."""

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

    ``logits(batch)`` is (B, C). ``label`` (B,) is the class that the attacker wants to leave, or to
    reach if ``targeted``. ``succeeded`` applies the decision rule of the system.

    ``stationary_start`` states that the score to be lowered has its maximum at the input itself.
    The gradient there is rounding noise only, so attacks first take a random step.
    """

    model: InstrumentedModel
    label: Tensor
    targeted: bool
    stationary_start: bool = False

    @abstractmethod
    def logits(self, batch: Batch) -> Tensor:
        """Return the logits of raw input: (B, C)."""

    @torch.no_grad()
    def decide(self, batch: Batch) -> Tensor:
        """Return the system's decision, a class index: (B,)."""
        return self.logits(batch).argmax(dim=1)

    def succeeded(self, batch: Batch) -> Tensor:
        """Tell per item whether the attack succeeds: (B,) bool."""
        hit = self.decide(batch) == self.label
        return hit if self.targeted else ~hit

    @abstractmethod
    def select(self, rows: Sequence[int]) -> Self:
        """Return the objective of some items of the batch, in this order, repeats allowed."""


class Identification(Objective):
    """Closed-set identification: leave the own label, or be identified as another speaker.

    Args:
        model: Model with a head of C classes.
        label: (B,) labels to leave, or targets to reach.
        targeted: Whether ``label`` is to be reached.

    Raises:
        InputError: If the model has no head.
    """

    def __init__(self, model: InstrumentedModel, label: Tensor, *, targeted: bool = False) -> None:
        super().__init__()
        if model.head is None:
            raise InputError(
                "this model has no head and only embeds; attack it with Verification, or add a head"
            )
        self.model = model
        self.label = label
        self.targeted = targeted

    def logits(self, batch: Batch) -> Tensor:
        """Return the logits of raw input: (B, C)."""
        return self.model.logits(self.model.scores(batch))

    def select(self, rows: Sequence[int]) -> Self:
        """Return the objective of some items."""
        return type(self)(self.model, self.label[list(rows)], targeted=self.targeted)


class OpenSetIdentification(Identification):
    """Open-set identification: the best of C enrolled speakers, or none of them (Chen et al. 2021).

    A recording is rejected if its best score is below the threshold. Rejection is an additional
    class, the last one (index C), whose score is the threshold. An untargeted attack aims at any
    decision other than ``label``: an enrolled speaker is no longer recognised, or, from class C, a
    stranger is accepted as anybody. A targeted attack aims at being accepted as speaker ``label``.

    Args:
        model: Model whose head, a ``CosineHead`` or ``PldaHead``, holds C enrolled voices.
        label: (B,) decisions to leave, or targets to reach, in 0 … C.
        threshold: Score of the head at and above which the system accepts.
        targeted: Whether ``label`` is to be reached.
    """

    def __init__(
        self, model: InstrumentedModel, label: Tensor, *, threshold: float, targeted: bool = False
    ) -> None:
        super().__init__(model, label, targeted=targeted)
        self.threshold = threshold

    def logits(self, batch: Batch) -> Tensor:
        """Return the logits of raw input: (B, C + 1); a speaker wins a tie with the threshold."""
        scores = self.model.scores(batch)
        rejected = scores.new_full((len(scores), 1), self.threshold)
        return self.model.logits(torch.cat([scores, rejected], dim=1))

    def select(self, rows: Sequence[int]) -> Self:
        """Return the objective of some items."""
        return type(self)(
            self.model, self.label[list(rows)], threshold=self.threshold, targeted=self.targeted
        )


class Verification(Objective):
    """Speaker verification: each item is scored against one voice, and accepted at a threshold.

    The two classes are (reject, accept), with logits (threshold − score, score − threshold), so the
    decision changes at the threshold and the gradient is that of the score.

    Args:
        model: Model that embeds recordings; its head is not used.
        references: (B, D) enrolled voice that each item claims, or other input of ``back_end``.
        threshold: Score at and above which the system accepts.
        goal: ``accept`` if the attacker wants the items accepted, ``reject`` if rejected.
        back_end: Function that makes a head (B, D) → (B, B) of the references: the cosine, or for
            PLDA (probabilistic linear discriminant analysis) ``functools.partial(PldaHead, plda)``.
        self_reference: Whether each reference is the embedding of the attacked item itself.

    Raises:
        InputError: If the goal is unknown, or if the references are no batch.
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
        super().__init__()
        if goal not in get_args(Goal):
            raise InputError(f"goal is {goal!r}, expected one of {get_args(Goal)}")
        if isinstance(references, Tensor) and references.dim() < 2:
            raise InputError(
                f"references have shape {tuple(references.shape)}, expected (items, D); pass one "
                "voice per item"
            )
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
        """Return the score of each item against its reference: (B,)."""
        scores: Tensor = self.head(self.model.embed(batch))
        return scores.diagonal()

    def logits(self, batch: Batch) -> Tensor:
        """Return the logits of raw input: (B, 2)."""
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
    """A decision behind a detector: the attacker wants to succeed without raising an alarm.

    The two classes are (attack failed, attack succeeded); the second is the target. Its margin is
    the smaller one of the attacker's margin in the decision, in logits, and the distance of the
    detector from an alarm, in units of ``scale``. Every step of an attack thus improves the
    condition that is not met yet (after Carlini & Wagner 2017, and Bryniarski et al. 2022).

    Args:
        objective: Decision and goal without the detector.
        evidence: Differentiable detector, raw batch → (B,); higher is more suspicious.
        threshold: Evidence above which the detector raises an alarm.
        scale: Amount of evidence that weighs as much as one logit.
    """

    def __init__(
        self, objective: Objective, evidence: nn.Module, *, threshold: float, scale: float
    ) -> None:
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
        """Return the logits of raw input: (B, 2)."""
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
