"""Record the outputs of named layers with forward hooks that are always removed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nip_audio.core.near import suggest_names
from nip_audio.errors import InputError, LayerNotFoundError

__all__ = ["LayerTap", "tap_layers"]


class LayerTap:
    """Outputs of the tapped layers in the latest forward pass.

    It is indexed by layer name: ``tap["frames.4"]`` is that layer's output, with its autograd
    graph.
    """

    def __init__(self) -> None:
        """Start without outputs."""
        self._outputs: dict[str, Tensor] = {}

    def record(self, layer: str, output: object) -> None:
        """Store a layer's output.

        Raises:
            InputError: If the layer does not return one tensor.
        """
        if not isinstance(output, Tensor):
            raise InputError(
                f"layer {layer!r} returns {type(output).__name__}, expected one tensor; tap a "
                "layer inside it"
            )
        self._outputs[layer] = output

    def __getitem__(self, layer: str) -> Tensor:
        """Return a layer's output.

        Raises:
            LayerNotFoundError: If the layer is not tapped or has not run yet.
        """
        if layer not in self._outputs:
            raise LayerNotFoundError(
                f"layer {layer!r} has no output; layers tapped and run so far: "
                f"{', '.join(self._outputs) or 'none'}"
            )
        return self._outputs[layer]


def find_layers(network: nn.Module, layers: Sequence[str]) -> dict[str, nn.Module]:
    """Return the named submodules of a network.

    Raises:
        LayerNotFoundError: If a name does not exist; the message suggests similar names.
    """
    modules = {name: module for name, module in network.named_modules() if name}
    for layer in layers:
        if layer not in modules:
            raise LayerNotFoundError(
                f"layer {layer!r} does not exist in {type(network).__name__}; "
                f"{suggest_names(layer, modules)}"
            )
    return {layer: modules[layer] for layer in layers}


@contextmanager
def tap_layers(network: nn.Module, layers: Sequence[str]) -> Iterator[LayerTap]:
    """Record the outputs of named layers while the context is open.

    The hooks are removed when the context is left, also by an exception.

    Args:
        network: Module whose layers are tapped.
        layers: Layer names as in ``network.named_modules()``.

    Yields:
        The recorded outputs by layer name.

    Raises:
        LayerNotFoundError: If a name does not exist; the message suggests similar names.
        InputError: During the forward pass, if a layer does not return exactly one tensor.
    """
    found = find_layers(network, layers)
    tap = LayerTap()
    handles: list[RemovableHandle] = []

    def hook_for(layer: str) -> Any:
        return lambda module, args, output: tap.record(layer, output)

    try:
        for layer, module in found.items():
            handles.append(module.register_forward_hook(hook_for(layer)))
        yield tap
    finally:
        for handle in handles:
            handle.remove()
