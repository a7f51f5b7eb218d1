"""Order the neurons of a layer by influence, and compute the inverse perturbation of an input.

Both are steps of NIP, neuron-level inverse perturbation (Chen et al., arXiv 2112.13060).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nip_audio.core.adapter import Batch
from nip_audio.core.influence import (
    InfluenceOf,
    linear_influence,
    neuron_influence,
    neuron_outputs,
)
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and restore the mode of every module on exit."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


class Neurons:
    """The neurons of one layer, in order of their influence (NIP, Algorithm 1).

    Args:
        model: Model that the layer belongs to.
        layer: Name of the tapped layer.
        of: Output that the influence is measured on: a logit or a confidence.
    """

    def __init__(self, model: InstrumentedModel, layer: str, of: InfluenceOf) -> None:
        self.model = model
        self.layer = layer
        self.of = of
        self._feeds_head: bool | None = None

    def influence(self, batch: Batch) -> Tensor:
        """Return the influence σ of each neuron (NIP, Eq. 2).

        The closed form is used if the layer's output is exactly what a linear head scores, and
        automatic differentiation otherwise; both give the same values.

        Args:
            batch: Model input.

        Returns:
            (B, N) influences.
        """
        head = self.model.head
        # a subclass may compute anything
        if type(head) is nn.Linear and self._feeds_head is not False:
            with torch.no_grad(), self.model.tap(self.layer) as tap:
                embeddings = self.model.embed_input(batch)
                # compare identity, not values: no operation may lie between layer and head
                self._feeds_head = embeddings is tap[self.layer]
                if self._feeds_head:
                    return linear_influence(embeddings, head.weight, head.bias, of=self.of)
        return neuron_influence(self.model, batch, self.layer, of=self.of)

    def order(self, batch: Batch) -> Tensor:
        """Return the neurons by descending influence (NIP, Algorithm 1).

        Args:
            batch: Model input.

        Returns:
            (B, N) indices on the CPU; ties are in order of index.

        Raises:
            InputError: If an influence is not finite.
        """
        with evaluating(self.model):
            influence = self.influence(self._as_the_model_takes_it(batch))
        if not bool(influence.isfinite().all()):
            raise InputError(
                f"the influence of neurons of layer {self.layer!r} is not finite, expected finite "
                "numbers; check the input for NaN, or tap another layer"
            )
        return influence.argsort(dim=1, descending=True, stable=True).cpu()

    def gradient(self, batch: Batch, *, front: Tensor, tail: Tensor) -> Tensor:
        """Return ρ = ∇_x (Σ_tail φ − Σ_front φ), not normalised (NIP, Eq. 5 and Eq. 6).

        Args:
            batch: Model input without padding, (B, *S).
            front: (B, k1) indices of the front neurons.
            tail: (B, k2) indices of the tail neurons.

        Returns:
            (B, *S) gradients.

        Raises:
            InputError: If the layer does not depend on the input, or the gradient is not finite.
        """
        with evaluating(self.model), torch.enable_grad(), self.model.tap(self.layer) as tap:
            # a leaf that requires grad, so that the graph exists even for frozen weights
            x = self._as_the_model_takes_it(batch).x.clone().requires_grad_(True)
            self.model.embed_input(batch.with_x(x))
            phi = neuron_outputs(tap[self.layer])
            loss = phi.gather(1, tail.to(phi.device)).sum()
            loss = loss - phi.gather(1, front.to(phi.device)).sum()
            found = None
            if loss.requires_grad:  # items are independent: the gradient of the sum serves each
                (found,) = torch.autograd.grad(loss, x, allow_unused=True)
        if found is None:
            raise InputError(
                f"the neurons of layer {self.layer!r} do not depend on the input, expected a "
                "gradient; tap another layer"
            )
        if not bool(found.isfinite().all()):
            raise InputError(
                f"the gradient of neurons of layer {self.layer!r} is not finite, expected finite "
                "numbers; check the input for NaN, or tap another layer"
            )
        return found

    def _as_the_model_takes_it(self, batch: Batch) -> Batch:
        dtypes = (p.dtype for p in self.model.network.parameters() if p.is_floating_point())
        return batch.with_x(batch.x.detach().to(next(dtypes, batch.x.dtype)))
