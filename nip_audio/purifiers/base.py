"""What every defence says of itself, and the purifier: it sees an input and nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import torch

from nip_audio.core.adapter import Batch

__all__ = ["Defence", "Level", "Purifier"]

Level = Literal["raw", "input"]
"""Whether it works on raw input (a waveform), or on the model's own (a spectrogram)."""


class Defence(ABC):
    """What stands between an attacker and a model's answer; no defence is ever given a label.

    Attributes:
        version: Raised when the same settings give another result; evaluations that kept what the
            old one made then ask again.
    """

    version: ClassVar[int] = 1

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name with the settings that matter, for tables."""

    @property
    def seen(self) -> frozenset[str]:
        """``Audio.content_sha256`` of everything it was fitted on."""
        return frozenset()

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return everything the result depends on, as plain JSON values."""


class Purifier(Defence):
    """Changes inputs so that what an attacker did to them no longer works.

    ``purify`` is given inputs and a source of randomness: no label and no clean original, so that a
    purifier cannot be an oracle, whoever writes it.

    Attributes:
        level: Where it works.
        differentiable: Whether gradients flow through ``purify``; where not, whoever attacks end to
            end takes it for the identity in the backward pass (BPDA, Athalye et al. 2018).
        random: Whether two calls may differ.
        before: Of one that works on the model's input: what is done to raw input first, e.g. noise
            that it was trained behind.
    """

    level: ClassVar[Level]
    differentiable: ClassVar[bool]
    random: ClassVar[bool]
    before: Purifier | None = None

    @property
    def works_on_raw(self) -> bool:
        """Whether raw input is changed, so that whoever attacks behind it goes round."""
        return self.level == "raw" or self.before is not None

    @abstractmethod
    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Return inputs of the same shape, within their bounds; padding stays zero.

        Args:
            batch: Values of ``level``.
            generator: Source of randomness, on the CPU.
        """
