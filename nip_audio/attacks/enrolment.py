"""Attacks on enrolment: the attacker changes the recording that a speaker enrols with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from nip_audio.attacks.objectives import Goal, Verification
from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError

__all__ = ["EnrolmentSide"]


class EnrolmentSide(Verification):
    """Verification of a known probe against the voice that is enrolled from the items.

    With goal ``accept``, an impostor who speaks the probe is accepted as the enrolled speaker; with
    ``reject``, the enrolled speaker's own probe is rejected. As in enrolment, the enrolled voice is
    the mean of the unit embeddings of the item and of the speaker's other recordings. Every attack
    can use this objective.

    Args:
        model: Model that embeds recordings; its head is not used.
        probes: (B, D) embedding of the recording that is verified against each item.
        threshold: Cosine at and above which the system accepts.
        goal: Either ``accept`` or ``reject``.
        others: (B, K, D) embeddings of the other recordings that each speaker enrols with; None if
            there are none.

    Raises:
        InputError: If ``others`` does not match the shape of ``probes``.
    """

    def __init__(
        self,
        model: InstrumentedModel,
        probes: Tensor,
        *,
        threshold: float,
        goal: Goal,
        others: Tensor | None = None,
    ) -> None:
        super().__init__(model, probes, threshold=threshold, goal=goal)
        if others is not None and (
            others.dim() != 3 or (len(others), others.shape[2]) != tuple(probes.shape)
        ):
            raise InputError(
                f"others have shape {tuple(others.shape)} for probes of shape "
                f"{tuple(probes.shape)}, expected (items, recordings, D) for (items, D); pass the "
                "embeddings of the same items"
            )
        self.probes = probes
        self.others = others

    def scores(self, batch: Batch) -> Tensor:
        """Return the cosine of each probe to the voice enrolled from its item: (B,)."""
        unit = torch.nn.functional.normalize
        voices = unit(self.model.embed(batch), dim=1)[:, None]
        if self.others is not None:
            voices = torch.cat([voices, unit(self.others, dim=2)], dim=1)
        return torch.nn.functional.cosine_similarity(voices.mean(dim=1), self.probes)

    def select(self, rows: Sequence[int]) -> Self:
        """Return the objective of some items."""
        chosen = list(rows)
        return type(self)(
            self.model,
            self.probes[chosen],
            threshold=self.threshold,
            goal=self.goal,
            others=None if self.others is None else self.others[chosen],
        )
