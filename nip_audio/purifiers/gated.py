"""Gated purification: only inputs that a detector flags are purified."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch
from nip_audio.errors import InputError
from nip_audio.purifiers.base import Defence, Purifier
from nip_audio.purifiers.defended_model import DefendedModel, ModelWithDefence

__all__ = ["Gate", "GatedModel", "GatedPurifier"]


class Gate(Protocol):
    """A detector that flags suspicious inputs; it is given no label and no clean original."""

    @property
    def name(self) -> str:
        """Name shown in tables."""
        ...

    @property
    def seen(self) -> frozenset[str]:
        """Content hashes (``Audio.content_sha256``) of everything the gate was fitted on."""
        ...

    def settings(self) -> dict[str, Any]:
        """Return all settings that the flags depend on, as plain JSON values."""
        ...

    def flags(self, raw: Batch) -> Tensor:
        """Return which raw items are suspicious, (B,) bool; equal items get equal results."""
        ...


class GatedPurifier(Defence):
    """A purifier that is applied to flagged inputs only; all others pass bit for bit.

    The loss of benign accuracy is that of the purifier times the gate's false-positive rate. An
    attack that the gate misses is not purified.

    Args:
        purifier: Purifier of either level.
        gate: Detector that decides on raw input.
    """

    def __init__(self, purifier: Purifier, gate: Gate) -> None:
        self.purifier = purifier
        self.gate = gate

    @property
    def name(self) -> str:
        """Names of the purifier and the gate."""
        return f"{self.purifier.name}, gated by {self.gate.name}"

    @property
    def seen(self) -> frozenset[str]:
        """Content hashes of everything the purifier or the gate was fitted on."""
        return self.purifier.seen | self.gate.seen

    def settings(self) -> dict[str, Any]:
        """Return the settings of the purifier and the gate."""
        return {
            "name": "gated",
            "purifier": self.purifier.settings(),
            "gate": self.gate.settings(),
        }


class GatedModel(ModelWithDefence[GatedPurifier]):
    """A model behind a gated purifier; the arguments are those of ``ModelWithDefence``.

    The gate's decision has no gradient: an end-to-end attacker gets the gradient of the purifier
    for flagged inputs, and that of the undefended model for all others.
    """

    def to_input(self, batch: Batch) -> Batch:
        """Turn raw input into model input, and purify the flagged items."""
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
        """Return the defended model without its front end, which only works if it has none.

        Raises:
            InputError: If there is a front end: the gate needs the raw input.
        """
        if self.front_end is not None:
            raise InputError(
                f"{self.defence.name} decides on raw input, which an attack at level 'input' "
                "bypasses; attack at level 'raw'"
            )
        return super().without_front_end()
