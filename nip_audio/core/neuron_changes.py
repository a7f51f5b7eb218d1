"""NCCR neuron by neuron: where in a layer the change under noise goes, not only how large it is.

Source: NCCR (Shi), Sec. 3.2 and 6. The scalar ‖F(x') − F(x)‖ / ‖F(x)‖ is kept beside it. The paper
says that a vector tells more than the scalar (Sec. 5), not what its entries are; here they are the
signed changes of a layer's neurons, all relative to ‖F(x)‖.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nip_audio.core.adapter import Batch
from nip_audio.core.influence import neuron_outputs
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.nccr import change_rate, disturbed_inputs
from nip_audio.core.noise import Noise
from nip_audio.errors import InputError

__all__ = ["NeuronChanges", "measure_neuron_changes"]


@dataclass(frozen=True)
class NeuronChanges:
    """How layers of one item change under noise.

    Attributes:
        neurons: By layer, (noises, N) mean over the draws of (F_n(x') − F_n(x)) / ‖F(x)‖.
        rates: By layer, (noises,) mean over the draws of ‖F(x') − F(x)‖ / ‖F(x)‖, the scalar NCCR.
        outputs: By layer, (N,) F(x).
        embedding: (D,) of x.
    """

    neurons: Mapping[str, Tensor]
    rates: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    embedding: Tensor

    def unit_outputs(self, layers: Sequence[str]) -> Tensor:
        """Return F(x) of layers side by side, each of unit length, (N of all layers,)."""
        return torch.cat([normalize(self.outputs[layer], dim=0) for layer in layers])


@torch.no_grad()
def measure_neuron_changes(
    model: InstrumentedModel,
    item: Batch,
    *,
    layers: Sequence[str],
    noises: Sequence[Noise],
    draws: int,
    generator: torch.Generator,
) -> NeuronChanges:
    """Measure one item; all draws of all noises are one forward pass.

    Args:
        model: In evaluation mode.
        item: Batch of one raw item, without padding (``Batch.item``).
        layers: Whose neurons; at least one.
        noises: At least one.
        draws: Of each noise.
        generator: Source of the noise; equal generators give equal results.

    Returns:
        The changes, detached.

    Raises:
        InputError: If the batch does not hold exactly one unpadded item, or nothing is to be drawn.
        LayerNotFoundError: With near matches.
    """
    if len(item) != 1 or item.lengths is not None:
        raise InputError(f"got {len(item)} items, expected one without padding; use Batch.item(i)")
    if not layers or not noises or draws < 1:
        raise InputError(
            f"got {len(layers)} layers, {len(noises)} noises and {draws} draws, expected at least "
            "one each"
        )
    clean_input = model.to_input(item)
    disturbed = disturbed_inputs(model, item, clean_input, noises, draws, generator)
    with model.tap(*layers) as tap:
        embeddings = model.embed_input(Batch(torch.cat([clean_input.x, *disturbed])))
        outputs = {layer: neuron_outputs(tap[layer]) for layer in layers}
    neurons, rates = {}, {}
    for layer, values in outputs.items():
        clean, noisy = values[0], values[1:].reshape(len(noises), draws, -1)
        size = clean.norm().clamp_min(torch.finfo(clean.dtype).tiny)
        neurons[layer] = (noisy.mean(dim=1) - clean) / size
        rates[layer] = change_rate(clean, noisy).mean(dim=1)
    first = {layer: values[0] for layer, values in outputs.items()}
    return NeuronChanges(neurons, rates, first, embeddings[0])
