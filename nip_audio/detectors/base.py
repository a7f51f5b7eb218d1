"""Interface of the measures that detectors use: numbers of one item, without label or original."""

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
    """A measure of an item that separates attacked from clean items.

    A detector fits a distance to the rows that ``measure`` returns for clean items; ``suspicion``
    is the score of the source, as far as the measure has it: ``as_published`` tells whether that is
    all the way. If the published score needs attacked items, the class documents its replacement.

    A measure that learns must not be judged on the items it has learned from: an item lies nearer
    to a mean that it is part of. Fit the distance to other clean items than those given to ``fit``.
    """

    @property
    def name(self) -> str:
        """Name shown in tables."""
        ...

    @property
    def source(self) -> str:
        """Paper, with the equation or section."""
        ...

    @property
    def as_published(self) -> bool:
        """Whether ``suspicion`` is the source's method, without a deviation that may matter."""
        ...

    @property
    def passes(self) -> float:
        """Forward passes of the model that one item costs; a backward pass counts as two."""
        ...

    def settings(self) -> dict[str, Any]:
        """Return all settings that the numbers depend on, as plain JSON values.

        For a measure that learns, these describe how it learns: a cache of rows must also record
        the items and the generator given to ``fit``.
        """
        ...

    def fit(
        self, model: InstrumentedModel, clean: Sequence[Batch], *, generator: torch.Generator
    ) -> Self:
        """Learn from clean items, if the measure learns; labels are the model's predictions."""
        ...

    def measure(
        self, model: InstrumentedModel, item: Batch, *, generator: torch.Generator
    ) -> Array:
        """Measure one raw item (a batch of one, unpadded): (F,) finite float64 numbers."""
        ...

    def suspicion(self, rows: Array) -> Array:
        """Compute the published score of rows of ``measure``, (n, F) → (n,); high is suspicious."""
        ...


class Transform(Protocol):
    """A transform of raw items; every purifier of raw input is one."""

    @property
    def name(self) -> str:
        """Name shown in tables."""
        ...

    def settings(self) -> dict[str, Any]:
        """Return all settings that the result depends on, as plain JSON values."""
        ...

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Return changed items of the same shape, within their bounds."""
        ...
