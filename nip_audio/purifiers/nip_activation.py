"""NIP_n: the inverse perturbation on the activations of a layer instead of the input."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel, OutputKind
from nip_audio.core.taps import find_layers
from nip_audio.errors import InputError
from nip_audio.purifiers.nip_pool import NipPool

__all__ = ["ActivationDefendedModel"]


class ActivationDefendedModel(InstrumentedModel):
    """A model whose tapped layer puts out A ± Mean(A)·ρ_n/(Max(ρ_n) − Min(ρ_n)).

    ρ_n is the gradient of the chosen candidate's loss by the activations (NIP, Eq. 5–6, one layer
    up): 1/positions at its tail neurons, −1/positions at its front ones, so that the quotient needs
    no backward pass. The candidate is the one that ``NipPool`` would choose for the input.

    The paper says of NIP_n only that it "uses inverse perturbations on neuron activations in the
    chosen layer"; this is Eq. 8 read with A for x̂. Activations have no bounds to be clipped to;
    where their mean is ≈ 0, nothing is changed. The choice itself has no gradient; given the
    choice, the model is differentiable.

    Args:
        model: What is defended; its parts are shared, not copied.
        pool: Fitted on the same network.

    Raises:
        InputError: If the pool looks into another network.
        LayerNotFoundError: If the layer is no module of the network.
    """

    def __init__(self, model: InstrumentedModel, pool: NipPool) -> None:
        """See the class."""
        if pool.model.network is not model.network:
            raise InputError(
                "the pool looks into another network, expected this model's own: its neurons are "
                "to be changed; fit or load the pool with this model"
            )
        find_layers(model.network, [pool.layer])
        super().__init__(model.network, **model.parts())
        self.model = model
        self.pool = pool
        self.train(model.training)

    def to_input(self, batch: Batch) -> Batch:
        """Turn raw input into model input."""
        return self.model.to_input(batch)

    def embed_input(self, batch: Batch) -> Tensor:
        """Embed model input with changed activations: (B, D)."""
        pool, pattern = self.pool, self._pattern(batch)
        lengths = self.model.tap_lengths(pool.layer, batch.lengths)

        def changed(module: nn.Module, args: Any, activation: Tensor) -> Tensor:
            shape = (*pattern.shape, *[1] * (activation.dim() - 2))
            valid = lengths if activation.dim() > 2 else None
            change = pool.step(activation, valid) * pattern.reshape(shape).to(activation)
            return activation + Batch(change.expand_as(activation), valid).masked()

        layer = find_layers(self.network, [pool.layer])[pool.layer]
        handle = layer.register_forward_hook(changed)
        try:
            return self.model.embed_input(batch)
        finally:
            handle.remove()

    def with_head(
        self,
        head: nn.Module,
        *,
        labels: tuple[str, ...] = (),
        output_kind: OutputKind = "cosine",
        scale: float | None = None,
    ) -> Self:
        """Return the same defence in the model with another head."""
        model = self.model.with_head(head, labels=labels, output_kind=output_kind, scale=scale)
        return type(self)(model, self.pool)

    def without_front_end(self) -> Self:
        """Return the defended model behind the front end."""
        return type(self)(self.model.without_front_end(), self.pool)

    def _pattern(self, batch: Batch) -> Tensor:
        """ρ_n/(Max(ρ_n) − Min(ρ_n)) of the chosen candidates: (B, N)."""
        chosen = self.pool.selection(self.pool.choose(batch))
        pattern = torch.zeros(len(batch), self.pool.order.shape[1])
        pattern.scatter_(1, chosen.tail, 1.0).scatter_(1, chosen.front, -1.0)
        # some neuron always remains, where ρ_n is 0
        return pattern / ((chosen.tail.shape[1] > 0) + (chosen.front.shape[1] > 0))
