"""Base classes of defences and purifiers.

A purifier receives inputs only, never a label or a clean original.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import torch

from nip_audio.core.adapter import Batch

__all__ = ["Defence", "Level", "Purifier"]

Level = Literal["raw", "input"]
"""Where a purifier works: on raw input (a waveform), or on model input (a spectrogram)."""


class Defence(ABC):
    """A defence of a model against adversarial inputs; no defence is ever given a label.

    Attributes:
        version: Version of the method. Raise it when the same settings give another result, so that
            evaluations do not reuse what they have cached.
    """

    version: ClassVar[int] = 1

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name for tables, with the settings that matter."""

    @property
    def seen(self) -> frozenset[str]:
        """Content hashes (``Audio.content_sha256``) of everything the defence was fitted on."""
        return frozenset()

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return all settings that the result depends on, as plain JSON values."""


class Purifier(Defence):
    """A defence that changes inputs so that adversarial perturbations lose their effect.

    ``purify`` receives inputs and a source of randomness, but no label and no clean original, so
    that no purifier can be an oracle.

    Attributes:
        level: Where the purifier works: on raw input or on model input.
        differentiable: Whether gradients flow through ``purify``. If not, an end-to-end attacker
            treats it as the identity in the backward pass (backward pass differentiable
            approximation, BPDA; Athalye et al. 2018).
        random: Whether two calls may give different results.
        before: Purifier of raw input that is applied first by a purifier of model input, e.g. the
            noise that it was trained with; None if there is none.
    """

    level: ClassVar[Level]
    differentiable: ClassVar[bool]
    random: ClassVar[bool]
    before: Purifier | None = None

    @property
    def works_on_raw(self) -> bool:
        """Whether raw input is changed, so that an attack on model input would bypass it."""
        return self.level == "raw" or self.before is not None

    @abstractmethod
    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Return inputs of the same shape, within their bounds; padding stays zero.

        Args:
            batch: Raw input or model input, as ``level`` says, (B, *S).
            generator: Source of randomness, on the CPU.
        """
