"""Attacks on the enrolment: the recording a voice is enrolled from is what is changed."""

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
    """Verification of a known probe against the voice enrolled from the items.

    Goal ``accept`` lets the probe's speaker, an impostor, in as the speaker who enrols; ``reject``
    locks the true speaker, whose probe it is, out. The enrolled voice is the mean of the unit
    embeddings of the item and of the speaker's other recordings, as enrolment makes it. Any attack
    runs on it.

    Args:
        model: Any; its head is not used.
        probes: (B, D) embedding of the recording that will be verified against each item.
        threshold: Cosine from which the system accepts.
        goal: ``accept`` or ``reject``.
        others: (B, K, D) embeddings of other recordings that each speaker enrols with; None: none.

    Raises:
        InputError: If the parts do not fit together.
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
        """See the class."""
        super().__init__(model, probes, threshold=threshold, goal=goal)
        if others is not None and (
            others.dim() != 3 or (len(others), others.shape[2]) != tuple(probes.shape)
        ):
            raise InputError(
                f"others are {tuple(others.shape)} for probes of {tuple(probes.shape)}, expected "
                "(items, recordings, D) for (items, D)"
            )
        self.probes = probes
        self.others = others

    def scores(self, batch: Batch) -> Tensor:
        """Cosine of each probe to the voice enrolled from its item: (B,)."""
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
