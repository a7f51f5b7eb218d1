"""Base classes of the baseline detectors, with their checks and the reading of neuron outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nip_audio.core.adapter import Batch
from nip_audio.core.influence import neuron_outputs
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import CalibrationError, InputError, StateError

Array = NDArray[np.float64]


class Baseline(ABC):
    """Base class of measures (``nip_audio.detectors.base.Measure``) for models with a head.

    A subclass implements ``_measure``, which runs without gradients, and ``_learn`` if it learns.
    The model must be in evaluation mode; it is not modified.

    Attributes:
        name: Name shown in tables.
        source: Paper, with the equation or section.
        as_published: Whether the suspicion is the method of the source, without a deviation.
    """

    name: str
    source: str
    as_published: ClassVar[bool] = False

    @property
    @abstractmethod
    def passes(self) -> float:
        """Forward passes of the model that one item costs; a backward pass counts as two."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return all settings that the numbers depend on, as plain JSON values."""

    def fit(
        self, model: InstrumentedModel, clean: Sequence[Batch], *, generator: torch.Generator
    ) -> Self:
        """Learn from clean items, if the measure learns; labels are the model's predictions.

        Raises:
            CalibrationError: If there are too few items.
            InputError: If the model has no head, or an item is not a batch of one without padding.
        """
        require_head(model, self.name)
        for item in clean:
            require_single(item)
        with torch.no_grad():
            self._learn(model, clean, generator)
        return self

    def measure(
        self, model: InstrumentedModel, item: Batch, *, generator: torch.Generator
    ) -> Array:
        """Measure one raw item (a batch of one, unpadded): (F,) finite float64 numbers.

        Raises:
            InputError: If the model has no head, the item is not a batch of one without padding,
                or a value of the item or of the model's scores is not finite.
            StateError: If the measure learns and was not fitted.
        """
        require_head(model, self.name)
        require_single(item)
        with torch.no_grad():
            row = np.asarray(self._measure(model, item, generator), dtype=np.float64)
        if not np.isfinite(row).all():
            raise InputError(
                f"{self.name} of this item is not finite, expected finite numbers; check the "
                "item's values and the model's scores"
            )
        return row

    @abstractmethod
    def suspicion(self, rows: Array) -> Array:
        """Score rows of ``measure``, (n, F) → (n,): high is suspicious."""

    def _learn(  # noqa: B027
        self, model: InstrumentedModel, clean: Sequence[Batch], generator: torch.Generator
    ) -> None:
        """Learn from clean items; by default nothing is learned."""

    @abstractmethod
    def _measure(
        self, model: InstrumentedModel, item: Batch, generator: torch.Generator
    ) -> Array: ...

    def _require_fitted(self, attribute: str) -> None:
        if not hasattr(self, attribute):
            raise StateError(
                f"{self.name} is not fitted, expected a fitted measure; call fit with clean items "
                "first"
            )

    def _require_items(self, got: int, fewest: int) -> None:
        if got < fewest:
            raise CalibrationError(
                f"{self.name} got {got} clean items, expected at least {fewest}; add more"
            )


class LayerBaseline(Baseline):
    """A baseline that reads the neuron outputs of some layers in one forward pass.

    Args:
        layers: Names of the tapped layers.

    Raises:
        InputError: If no layer is named.
    """

    def __init__(self, layers: Sequence[str]) -> None:
        self.layers = require_layers(layers)

    @property
    def passes(self) -> float:
        """One pass, which taps all layers."""
        return 1

    def settings(self) -> dict[str, Any]:
        """Return the name and the layers."""
        return {"name": self.name, "layers": list(self.layers)}

    def suspicion(self, rows: Array) -> Array:
        """Return the mean of each row."""
        return np.asarray(rows.mean(axis=1))

    def _looks(
        self, model: InstrumentedModel, items: Iterable[Batch]
    ) -> tuple[tuple[Array, ...], Array]:
        """Return neuron outputs of each layer, (n, N), and logits, (n, C), of n items."""
        looks = [look_inside(model, item, self.layers) for item in items]
        layers = zip(*(inside for inside, _ in looks), strict=True)
        return tuple(np.stack(one) for one in layers), np.stack([logits for _, logits in looks])


def require_head(model: InstrumentedModel, what: str) -> None:
    """Check that a model has a head.

    Raises:
        InputError: If the model only embeds.
    """
    if model.head is None:
        raise InputError(
            f"{what} compares decisions, and this model only embeds; enrol speakers and use "
            "with_head(CosineHead(voices))"
        )


def require_single(item: Batch) -> None:
    """Check that a batch is one item without padding whose values are finite.

    Raises:
        InputError: If it is not.
    """
    if len(item) != 1 or item.lengths is not None:
        raise InputError(f"got {len(item)} items, expected one without padding; use Batch.item(i)")
    if not bool(item.x.isfinite().all()):
        raise InputError(
            "the item has values that are not finite, expected finite numbers; read it again"
        )


def logits_of(model: InstrumentedModel, item: Batch) -> Tensor:
    """Return the logits of one item, (C,) float64."""
    return model.logits(model.scores(item))[0].double()


def look_inside(
    model: InstrumentedModel, item: Batch, layers: Sequence[str]
) -> tuple[list[Array], Array]:
    """Return neuron outputs of each layer, (N,), and logits, (C,), of one item, all float64."""
    with model.tap(*layers) as tap:
        logits = logits_of(model, item)
        inside = [neuron_outputs(tap[layer])[0].double().cpu().numpy() for layer in layers]
    return inside, logits.cpu().numpy()


def require_layers(layers: Sequence[str]) -> tuple[str, ...]:
    """Return the names of layers as a tuple.

    Raises:
        InputError: If there is no name.
    """
    if isinstance(layers, str) or not layers:
        raise InputError(f"layers are {layers!r}, expected a list of at least one name")
    return tuple(layers)


def require_at_least(name: str, value: float, least: float) -> None:
    """Check that a setting is at least ``least``.

    Raises:
        InputError: If it is smaller or not a number.
    """
    if not value >= least:
        raise InputError(f"{name} is {value}, expected at least {least:g}")
