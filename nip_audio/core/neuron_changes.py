"""Measure the neuron coverage change rate (NCCR) neuron by neuron.

Source: NCCR (Shi), Sec. 3.2 and 6. The paper says that a vector tells more than the scalar
‖F(x') − F(x)‖ / ‖F(x)‖ (Sec. 5), but not what its entries are. Here they are the signed changes of
a layer's neurons, all relative to ‖F(x)‖; the scalar is kept as well.
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
    """Changes of each layer's neurons under noise, for one item.

    Attributes:
        neurons: For each layer, (noises, N) mean over the draws of (F_n(x') − F_n(x)) / ‖F(x)‖.
        rates: For each layer, (noises,) mean over the draws of ‖F(x') − F(x)‖ / ‖F(x)‖, the scalar
            NCCR.
        outputs: For each layer, (N,) clean neuron outputs F(x).
        embedding: (D,) embedding of the clean item.
    """

    neurons: Mapping[str, Tensor]
    rates: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    embedding: Tensor

    def unit_outputs(self, layers: Sequence[str]) -> Tensor:
        """Concatenate the clean outputs of some layers, each scaled to unit length.

        Args:
            layers: Names of the layers, in order.

        Returns:
            (sum of the layers' N,).
        """
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
    """Measure one item, with all draws of all noises in one forward pass.

    Args:
        model: Model in evaluation mode.
        item: Batch of one raw item, without padding (``Batch.item``).
        layers: Names of the layers to measure; at least one.
        noises: Random perturbations; at least one.
        draws: Draws per noise, at least 1.
        generator: Random generator of the noise; equal generators give equal results.

    Returns:
        The changes, detached.

    Raises:
        InputError: If the batch does not hold exactly one unpadded item, or there is no layer,
            noise or draw.
        LayerNotFoundError: If a layer does not exist; the message suggests similar names.
    """
    if len(item) != 1 or item.lengths is not None:
        raise InputError(
            f"got a batch of {len(item)}, expected one item without padding; use Batch.item(i)"
        )
    if not layers or not noises or draws < 1:
        raise InputError(
            f"got {len(layers)} layers, {len(noises)} noises and {draws} draws, expected at least "
            "one of each"
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
