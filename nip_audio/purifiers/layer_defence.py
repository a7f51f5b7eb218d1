"""Defences inside a network, which change the outputs of layers instead of the input."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nip_audio.core.adapter import Batch, length_mask
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.taps import find_layers
from nip_audio.errors import InputError
from nip_audio.purifiers.base import Defence
from nip_audio.purifiers.defended_model import ModelWithDefence

__all__ = ["Change", "LayerDefence", "LayerDefendedModel"]

Change = Callable[[str, Tensor, Tensor | None], Tensor]
"""Function that changes the output of a layer.

It takes the layer's name, its output, (B, N) or (B, N, *S), and the (B,) number of valid positions
of the last axis (None means all), and returns a tensor of the same shape. Padding is restored
afterwards; the function must not depend on it.
"""


class LayerDefence(Defence):
    """A defence that changes the outputs of layers; it is given the model's input, and no label.

    Attributes:
        layers: Names of the layers, as in ``network.named_modules()``.
    """

    layers: tuple[str, ...]

    @property
    def where(self) -> str:
        """The layer, or the number of layers, as used in names."""
        return self.layers[0] if len(self.layers) == 1 else f"{len(self.layers)} layers"

    def check(self, model: InstrumentedModel) -> None:
        """Check that this defence can defend a model.

        Raises:
            LayerNotFoundError: If a layer is not a module of the model's network.
            InputError: If the defence does not fit the model for another reason.
        """
        find_layers(model.network, self.layers)

    @abstractmethod
    def prepare(
        self, model: InstrumentedModel, batch: Batch, *, generator: torch.Generator
    ) -> Change:
        """Return the change to apply to the layers in one forward pass.

        Args:
            model: Undefended model.
            batch: Model input of the forward pass.
            generator: Source of randomness, on the CPU.
        """


class LayerDefendedModel(ModelWithDefence[LayerDefence]):
    """A model whose layer outputs are changed by a ``LayerDefence``; differentiable end to end.

    Hooks are registered during a forward pass only, and are removed even after an error. If the
    defence is random, every call draws anew, so that averaging over calls is expectation over
    transformation (EOT). The arguments are those of ``ModelWithDefence``.

    Raises:
        InputError: If the defence does not fit the model; from ``embed_input``, if a layer returns
            anything but one tensor, or does not run.
        LayerNotFoundError: If a layer is not a module of the network.
    """

    def __init__(
        self, model: InstrumentedModel, defence: LayerDefence, *, generator: torch.Generator
    ) -> None:
        defence.check(model)
        super().__init__(model, defence, generator=generator)

    def embed_input(self, batch: Batch) -> Tensor:
        """Embed model input with the defence applied; return (B, D) embeddings."""
        change = self.defence.prepare(self.model, batch, generator=self.generator)
        with _changing(self.model, self.defence.layers, batch.lengths, change):
            return self.model.embed_input(batch)


@contextmanager
def _changing(
    model: InstrumentedModel, layers: tuple[str, ...], lengths: Tensor | None, change: Change
) -> Iterator[None]:
    """Change the outputs of layers while the context is open."""
    ran: set[str] = set()

    def hook_for(layer: str) -> Any:
        positions = model.tap_lengths(layer, lengths)

        def changed(module: nn.Module, args: Any, activation: object) -> Tensor:
            if not isinstance(activation, Tensor):
                raise InputError(
                    f"layer {layer!r} returns {type(activation).__name__}, expected one tensor; "
                    "choose a layer inside it"
                )
            ran.add(layer)
            valid = positions if activation.dim() > 2 else None
            return _where_valid(change(layer, activation, valid), activation, valid)

        return changed

    with ExitStack() as hooks:
        for layer, module in find_layers(model.network, layers).items():
            hooks.callback(module.register_forward_hook(hook_for(layer)).remove)
        yield
    idle = [layer for layer in layers if layer not in ran]
    if idle:
        raise InputError(
            f"layer {', '.join(idle)} did not run, expected every defended layer to run; choose "
            "layers inside it"
        )


def _where_valid(changed: Tensor, activation: Tensor, valid: Tensor | None) -> Tensor:
    if valid is None:
        return changed
    mask = length_mask(valid, activation.shape[-1])
    mask = mask.reshape(len(activation), *[1] * (activation.dim() - 2), -1)
    return torch.where(mask, changed, activation)
