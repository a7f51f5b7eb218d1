"""NIP_n: neuron-level inverse perturbation (NIP) applied to a layer's activations."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError
from nip_audio.purifiers.layer_defence import Change, LayerDefence
from nip_audio.purifiers.nip_pool import NipPool, Sign

__all__ = ["ActivationNip"]


class ActivationNip(LayerDefence):
    """Replace the output A of the pool's layer by A ± Mean(A)·ρ_n/(Max(ρ_n) − Min(ρ_n)).

    ρ_n is the gradient of the chosen candidate's loss with respect to the activations (NIP, Eq.
    5–6, applied to the layer instead of the input): 1/positions at its tail neurons and
    −1/positions at its front neurons, so that the quotient needs no backward pass. The candidate
    is the one that ``NipPool`` would choose for the input.

    The paper says of NIP_n only that it "uses inverse perturbations on neuron activations in the
    chosen layer"; this class applies Eq. 8 with A in place of x̂. Activations have no bounds to clip
    to; where their mean is ≈ 0, nothing is changed. The choice itself has no gradient; given the
    choice, the model is differentiable.

    Args:
        pool: Pool fitted on the network to defend.
    """

    def __init__(self, pool: NipPool) -> None:
        self.pool = pool
        self.layers = (pool.layer,)

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        model: InstrumentedModel,
        model_id: str | None = None,
        sign: Sign | None = None,
        quorum: float | None = None,
    ) -> Self:
        """Load the pool from a file; arguments and errors are those of ``NipPool.load``."""
        return cls(NipPool.load(path, model=model, model_id=model_id, sign=sign, quorum=quorum))

    @property
    def name(self) -> str:
        """Name of the pool, marked as NIP_n."""
        return self.pool.name.replace("nip-pool", "nip-n", 1)

    @property
    def seen(self) -> frozenset[str]:
        """Content hashes of everything the pool was fitted on."""
        return self.pool.seen

    def settings(self) -> dict[str, Any]:
        """Return the settings of the pool."""
        return self.pool.settings() | {"name": "nip-n"}

    def check(self, model: InstrumentedModel) -> None:
        """Check that the pool was fitted on the network of a model.

        Raises:
            InputError: If the pool belongs to another network.
            LayerNotFoundError: If the layer is not a module of the network.
        """
        if self.pool.model.network is not model.network:
            raise InputError(
                "the pool belongs to another network, expected this model's own network, whose "
                "neurons are changed; fit or load the pool with this model"
            )
        super().check(model)

    def prepare(
        self, model: InstrumentedModel, batch: Batch, *, generator: torch.Generator
    ) -> Change:
        """Return the change of the layer for the chosen candidates."""
        pattern = self._pattern(batch)

        def change(layer: str, activation: Tensor, lengths: Tensor | None) -> Tensor:
            shape = (*pattern.shape, *[1] * (activation.dim() - 2))
            return activation + self.pool.step(activation, lengths) * pattern.reshape(shape).to(
                activation
            )

        return change

    def _pattern(self, batch: Batch) -> Tensor:
        """Return ρ_n/(Max(ρ_n) − Min(ρ_n)) of the chosen candidates, (B, N)."""
        chosen = self.pool.selection(self.pool.choose(batch))
        pattern = torch.zeros(len(batch), self.pool.order.shape[1])
        pattern.scatter_(1, chosen.tail, 1.0).scatter_(1, chosen.front, -1.0)
        # ρ_n is 0 at the remaining neurons, of which there is always at least one
        return pattern / ((chosen.tail.shape[1] > 0) + (chosen.front.shape[1] > 0))
