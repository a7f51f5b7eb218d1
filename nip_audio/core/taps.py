"""Record the outputs of named layers with forward hooks that are always removed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.jit import ScriptModule
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


def layers_with_hooks(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the submodules that can be observed, with their names; TorchScript's cannot."""
    for name, module in network.named_modules():
        if name and not isinstance(module, ScriptModule):
            yield name, module


def find_layers(network: nn.Module, layers: Sequence[str]) -> dict[str, nn.Module]:
    """Return the named submodules of a network.

    Raises:
        LayerNotFoundError: If a name does not exist; the message suggests similar names.
    """
    modules = dict(layers_with_hooks(network))
    for layer in layers:
        if layer not in modules:
            raise LayerNotFoundError(
                f"layer {layer!r} does not exist in {type(network).__name__}; "
                f"{suggest_names(layer, modules)}"
            )
    return {layer: modules[layer] for layer in layers}


@contextmanager
def tap_layers(
    network: nn.Module,
    layers: Sequence[str],
    *,
    axes: Mapping[str, int] | None = None,
    whole: nn.Module | None = None,
) -> Iterator[LayerTap]:
    """Record the outputs of named layers while the context is open.

    The hooks are removed when the context is left, also by an exception.

    Args:
        network: Module whose layers are tapped.
        layers: Layer names as in ``network.named_modules()``.
        axes: Where the channels of layers lie that do not return one row an item with its channels
            in axis 1: the axis of the channels, by layer. Their outputs are recorded as (B, C, …):
            rows that a network makes of each item, such as windows, are folded back into items.
        whole: Module around the network that takes the batch; None is the network itself.

    Yields:
        The recorded outputs by layer name.

    Raises:
        LayerNotFoundError: If a name does not exist; the message suggests similar names.
        InputError: During the forward pass, if a layer does not return exactly one tensor, or
            returns it for a part of the batch.
    """
    found = find_layers(network, layers)
    tap = LayerTap()
    handles: list[RemovableHandle] = []
    items: list[int] = []

    def count_items(module: nn.Module, args: Any) -> None:
        items[:] = [len(args[0])]

    def hook_for(layer: str) -> Any:
        if axes is None or layer not in axes:

            def plain(module: nn.Module, args: Any, output: Any) -> None:
                _require_rows(layer, output, items)
                tap.record(layer, output)

            return plain

        def arranged(module: nn.Module, args: Any, output: Any) -> Any:
            # the network goes on from the recorded tensor, so that it gets a gradient
            first = output[0] if isinstance(output, tuple) and output else output
            if not isinstance(first, Tensor):
                tap.record(layer, output)
                return output
            _require_rows(layer, first, items)
            seen = _by_item(first, items[0], axes[layer])
            tap.record(layer, seen)
            back = _as_returned(seen, first.shape, axes[layer]).clone()
            return (back, *output[1:]) if isinstance(output, tuple) else back

        return arranged

    try:
        handles.append((whole or network).register_forward_pre_hook(count_items))
        for layer, module in found.items():
            handles.append(module.register_forward_hook(hook_for(layer)))
        yield tap
    finally:
        for handle in handles:
            handle.remove()


def _require_rows(layer: str, output: object, items: Sequence[int]) -> None:
    """Refuse a layer that sees a part of the batch: its latest output would stand for all."""
    if isinstance(output, Tensor) and output.dim() and items and len(output) < items[0]:
        raise InputError(
            f"layer {layer!r} returns {len(output)} rows for {items[0]} items, since the model "
            "embeds items of different lengths one by one; tap items of one length"
        )


def _by_item(output: Tensor, items: int, axis: int) -> Tensor:
    """Arrange rows of windows by item, channels first: (B · W, …, C, …) → (B, C, W, …)."""
    if output.shape[0] % items:
        raise InputError(
            f"a layer returns {output.shape[0]} rows for {items} items, expected the same number "
            "for each; tap another layer"
        )
    seen = output.movedim(axis, 1)
    rows = output.shape[0] // items
    return seen if rows == 1 else seen.reshape(items, rows, *seen.shape[1:]).movedim(1, 2)


def _as_returned(seen: Tensor, shape: Sequence[int], axis: int) -> Tensor:
    """Undo ``_by_item``."""
    flat = seen if seen.dim() == len(shape) else seen.movedim(2, 1).flatten(0, 1)
    return flat.movedim(1, axis)
