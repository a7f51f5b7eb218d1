"""What a detector looks at: a few numbers of one item, without its label or a clean original."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel

__all__ = ["Measure", "Transform"]

Array = NDArray[np.float64]


class Measure(Protocol):
    """Numbers that tell an attacked item from a clean one.

    Whoever detects fits a distance to ``measure`` of clean items; ``suspicion`` is the score as the
    source publishes it. Where a source publishes no score that needs no attacked items, the class
    says what stands in for it.

    What learns must not be judged by what it has learned from: an item is nearer to a mean that it
    is part of. Fit the distance to other clean items than those given to ``fit``.

    """

    @property
    def name(self) -> str:
        """As tables call it."""
        ...

    @property
    def source(self) -> str:
        """Paper and equation or section."""
        ...

    @property
    def passes(self) -> float:
        """Forward passes of the model that one item costs; a backward pass counts as two."""
        ...

    def settings(self) -> dict[str, Any]:
        """Everything that the numbers depend on besides model and item, as plain JSON values.

        Of what is learned, only how: whoever keeps rows must name the items and the generator given
        to ``fit`` too.
        """
        ...

    def fit(
        self, model: InstrumentedModel, clean: Sequence[Batch], *, generator: torch.Generator
    ) -> Self:
        """Learn from clean items, where there is something to learn; labels are the model's own."""
        ...

    def measure(
        self, model: InstrumentedModel, item: Batch, *, generator: torch.Generator
    ) -> Array:
        """Measure one raw item (a batch of one, unpadded): (F,) finite float64."""
        ...

    def suspicion(self, rows: Array) -> Array:
        """Score rows of ``measure``, (n, F) → (n,): high is suspicious, as published."""
        ...


class Transform(Protocol):
    """What changes raw items and says how; every purifier of raw input is one."""

    @property
    def name(self) -> str:
        """As tables call it."""
        ...

    def settings(self) -> dict[str, Any]:
        """Everything that the result depends on besides the items, as plain JSON values."""
        ...

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Return changed items of the same shape, within their bounds."""
        ...
