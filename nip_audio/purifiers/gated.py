"""Gated purification: a detector decides whether an input is touched at all."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch
from nip_audio.errors import InputError
from nip_audio.purifiers.base import Defence, Purifier
from nip_audio.purifiers.defended_model import AroundModel, DefendedModel

__all__ = ["Gate", "GatedModel", "GatedPurifier"]


class Gate(Protocol):
    """What tells suspicious inputs from others; it is given no label and no clean original."""

    @property
    def name(self) -> str:
        """As tables call it."""
        ...

    @property
    def seen(self) -> frozenset[str]:
        """``Audio.content_sha256`` of everything it was fitted on."""
        ...

    def settings(self) -> dict[str, Any]:
        """Return everything that its answers depend on, as plain JSON values."""
        ...

    def flags(self, raw: Batch) -> Tensor:
        """Tell which raw items are suspicious: (B,) bool. Equal items get equal answers."""
        ...


class GatedPurifier(Defence):
    """A purifier that is asked about flagged inputs alone; all others pass, bit for bit.

    The price in benign accuracy is so the purifier's times the gate's rate of false positives. An
    attack that the gate does not see is not undone either.

    Args:
        purifier: Of either level.
        gate: Looks at raw input.
    """

    def __init__(self, purifier: Purifier, gate: Gate) -> None:
        """See the class."""
        self.purifier = purifier
        self.gate = gate

    @property
    def name(self) -> str:
        """Purifier and gate."""
        return f"{self.purifier.name}, gated by {self.gate.name}"

    @property
    def seen(self) -> frozenset[str]:
        """What either of them was fitted on."""
        return self.purifier.seen | self.gate.seen

    def settings(self) -> dict[str, Any]:
        """Return those of both."""
        return {
            "name": "gated",
            "purifier": self.purifier.settings(),
            "gate": self.gate.settings(),
        }


class GatedModel(AroundModel[GatedPurifier]):
    """A model behind a gated purifier; arguments are those of ``AroundModel``.

    The gate's decision has no gradient: who attacks end to end sees the purifier where the gate is
    shut, and nothing where it is open.
    """

    def to_input(self, batch: Batch) -> Batch:
        """Turn raw input into model input, purified where the gate is shut."""
        plain = self.model.to_input(batch)
        with torch.no_grad():
            flagged = self.defence.gate.flags(batch)
        if not bool(flagged.any()):
            return plain
        behind = DefendedModel(self.model, self.defence.purifier, generator=self.generator)
        purified = behind.to_input(batch)
        shut = flagged.to(plain.x.device).reshape(-1, *[1] * (plain.x.dim() - 1))
        return plain.with_x(torch.where(shut, purified.x, plain.x))

    def without_front_end(self) -> GatedModel:
        """Refuse: the gate looks at raw input.

        Raises:
            InputError: Always, if there is a front end.
        """
        if self.front_end is not None:
            raise InputError(
                f"{self.defence.name} looks at raw input, which whoever attacks at level 'input' "
                "goes round; attack at level 'raw'"
            )
        return super().without_front_end()
