"""Find the layers of an unknown network that a detector can measure.

A layer is used if it runs once, returns one tensor with the same number of rows for each item, has
one axis whose size does not depend on the length of the input, and gives an item in a batch what it
gives the item alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import ModelCardError

__all__ = ["FoundLayers", "find_layers_of"]

_FEWEST_CHANNELS = 8
_FEWEST_TAPS, _MOST_TAPS = 3, 5
_PLAIN = 1  # rows are items, with their channels in axis 1
_CHANNELS_LAST = (nn.RNNBase, nn.LayerNorm, nn.Linear, nn.MultiheadAttention)
_SAME = 1e-3  # relative difference between an item in a batch and the item alone


@dataclass(frozen=True)
class FoundLayers:
    """Layers of a network that can be measured.

    Attributes:
        names: Names, in the order in which they run.
        axes: Axis of the channels of layers that do not have it in axis 1, or whose rows are not
            items.
        chosen: A few of them, evenly over the depth; the last is always among them.
    """

    names: tuple[str, ...]
    axes: Mapping[str, int]
    chosen: tuple[str, ...]


@torch.no_grad()
def find_layers_of(model: InstrumentedModel, longer: Tensor, shorter: Tensor) -> FoundLayers:
    """Find the layers of a model by running it.

    Args:
        model: Model in evaluation mode.
        longer: (2, N) waveforms.
        shorter: (2, M) waveforms with M clearly smaller than N.

    Raises:
        ModelCardError: If the model has no such layer.
    """
    root: nn.Module = getattr(model.network, "embedding_model", model.network)
    runs = [_run(model, root, wavs) for wavs in (longer, shorter, longer[:1])]
    common = [name for name in runs[0] if all(name in run for run in runs)]
    own = dict(getattr(model.network, "tap_axes", {}))
    names, axes = [], dict(own)
    for name in _without_doubles(common, runs[0]):
        last = isinstance(root.get_submodule(name), _CHANNELS_LAST) and root is model.network
        axis = own.get(name) or _axis(*(run[name] for run in runs), last=last)
        if axis is None:
            continue
        if axis != _PLAIN:
            axes[name] = abs(axis)
        names.append(name)
    if not names:
        raise ModelCardError(
            f"{type(model.network).__name__} has no layer that can be measured, expected at least "
            "one that returns a tensor with one row an item; add an nn.Identity on the embedding"
        )
    return FoundLayers(tuple(names), axes, _spread(names))


def _run(model: InstrumentedModel, root: nn.Module, wavs: Tensor) -> dict[str, Tensor]:
    """Run the model; return the outputs of the layers that run once, in their order."""
    outputs: dict[str, list[Tensor | None]] = {}

    def hook_for(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) and output else output
            fits = torch.is_tensor(first) and first.is_floating_point()
            outputs.setdefault(name, []).append(first if fits else None)

        return hook

    modules = {
        name: module
        for name, module in root.named_modules()
        if name and not isinstance(module, torch.jit.ScriptModule)  # which takes no hooks
    }
    handles = [module.register_forward_hook(hook_for(name)) for name, module in modules.items()]
    try:
        model.embed(Batch(wavs))
    finally:
        for handle in handles:
            handle.remove()
    once = {name: found[0] for name, found in outputs.items() if len(found) == 1}
    ran = {name: output for name, output in once.items() if output is not None}
    if root is model.network:
        return ran
    with model.tap(*ran) as tap:  # of SpeechBrain's networks, which arrange the axes themselves
        model.embed(Batch(wavs))
    return {name: tap[name] for name in ran}


def _without_doubles(names: list[str], outputs: Mapping[str, Tensor]) -> list[str]:
    """Leave out layers whose output is that of a layer around them."""
    kept: dict[tuple[int, torch.Size], str] = {}
    for name in names:
        place = (outputs[name].data_ptr(), outputs[name].shape)
        known = kept.get(place)
        if known is None or name.count(".") < known.count("."):
            kept[place] = name
    chosen = set(kept.values())
    return [name for name in names if name in chosen]


def _axis(long: Tensor, short: Tensor, alone: Tensor, *, last: bool) -> int | None:
    """Return the axis of a layer's channels, negative if rows must be folded; None if unfit.

    Args:
        long: Output for two items.
        short: Output for two shorter items.
        alone: Output for the first of the longer items alone.
        last: Whether layers of this class have their channels in the last axis.
    """
    if long.dim() != short.dim() or long.dim() < 2 or len(long) % 2 or len(short) % 2:
        return None
    fixed = [
        axis
        for axis in range(1, long.dim())
        if long.shape[axis] == short.shape[axis] and long.shape[axis] >= _FEWEST_CHANNELS
    ]
    rows = len(long) // 2
    if not fixed or long[:rows].shape != alone.shape:
        return None
    size = float(alone.abs().max())
    if not bool(alone.isfinite().all()) or size == 0:
        return None
    if float((long[:rows] - alone).abs().max()) > _SAME * size:
        return None
    axis = fixed[-1] if last or 1 not in fixed else 1
    return -axis if rows > 1 or len(short) > 2 else axis


def _spread(names: list[str]) -> tuple[str, ...]:
    """Choose a few layers evenly over the depth, outer ones where there are enough of them."""
    outer = [name for name in names if not any(name.startswith(f"{other}.") for other in names)]
    blocks = outer if len(outer) >= _FEWEST_TAPS else names
    if len(blocks) <= _MOST_TAPS:
        return tuple(blocks)
    step = (len(blocks) - 1) / (_MOST_TAPS - 1)
    return tuple(blocks[round(i * step)] for i in range(_MOST_TAPS))
