"""Stochastic activation pruning (SAP): keep a random subset of a layer's activations.

Large activations are more likely to be kept, and are rescaled so that the mean is unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError
from nip_audio.purifiers._checks import check_number
from nip_audio.purifiers.layer_defence import Change, LayerDefence

__all__ = ["ActivationPruning", "pruning_weights"]


def pruning_weights(
    activation: Tensor, lengths: Tensor | None, *, share: float, generator: torch.Generator
) -> Tensor:
    """Draw the factor of each activation: 0, or 1/(1 − (1 − p)^r) if it was drawn.

    r activations are drawn with replacement, each with probability p = |h|/Σ|h| of its item, so
    that the mean factor over draws is 1 wherever h is not 0 (SAP, Algorithm 1).

    Args:
        activation: (B, N) or (B, N, *S) activations h.
        lengths: (B,) number of valid positions of the last axis, from which alone activations are
            drawn; None means all.
        share: Number of draws r as a share of the item's activations; at least one is drawn.
        generator: Source of randomness, on the CPU.

    Returns:
        Factors with the shape and dtype of ``activation``, without gradient.

    Example:
        >>> h = torch.tensor([[0.0, 2.0, 0.0]])
        >>> pruning_weights(h, None, share=1.0, generator=torch.Generator()).tolist()
        [[0.0, 1.0, 0.0]]
    """
    h = activation.detach()
    valid = Batch(torch.ones_like(h, dtype=torch.float64), lengths).masked().flatten(1).cpu()
    size = Batch(h.abs().double(), lengths).masked().flatten(1).cpu()
    # if no activation differs from 0, draw uniformly: the product is 0 in any case
    size = torch.where(size.sum(dim=1, keepdim=True) > 0, size, valid)
    p = size / size.sum(dim=1, keepdim=True)
    draws = (share * valid.sum(dim=1, keepdim=True)).round().clamp_min(1.0)
    drawn = torch.multinomial(p, int(draws.max()), replacement=True, generator=generator)
    # surplus draws of a shorter item go into an extra column, which is dropped below
    drawn[torch.arange(drawn.shape[1])[None] >= draws] = p.shape[1]
    kept = torch.zeros(len(p), p.shape[1] + 1).scatter_(1, drawn, 1.0)[:, :-1] > 0
    survival = -torch.expm1(draws * torch.log1p(-p))
    weights = torch.where(kept, torch.where(kept, survival, 1.0).reciprocal(), 0.0)
    return weights.reshape(h.shape).to(h)


class ActivationPruning(LayerDefence):
    """Stochastic activation pruning (SAP; Dhillon et al., ICLR 2018, arXiv 1803.01442, Alg. 1).

    In every forward pass the activations of each layer are drawn with replacement in proportion to
    their magnitudes. Activations that are never drawn become 0; the others are divided by the
    probability of being drawn at all, so that the mean over draws is the layer's own output.
    Nothing is trained.

    The factors are constants in the backward pass. Averaged over draws, the gradient is that of the
    mean activation, so expectation over transformation (EOT) works against this defence.
    Differentiating the factors as well would not account for how the draw depends on the input.

    Deviation: the paper prunes after every activation function, this class after the named
    ``layers`` only. One call is one draw; the authors average an answer over many draws, which an
    evaluation or an attacker can do by calling repeatedly.

    Args:
        layers: Names of the layers, e.g. the default taps of a model's card.
        share: Number of draws as a share of a layer's activations; the authors' script uses 1.

    Raises:
        InputError: If no layer is named, or ``share`` is out of range.
    """

    def __init__(self, *, layers: Sequence[str] = (), share: float = 1.0) -> None:
        check_number("share", share, 0.01, 10.0, usual=1.0)
        if isinstance(layers, str) or not layers:
            raise InputError(
                f"layers is {layers!r}, expected a list of at least one name; pass for instance "
                "the default taps of the model's card"
            )
        self.layers = tuple(layers)
        self.share = share

    @property
    def name(self) -> str:
        """Name with the share and the layers."""
        return f"SAP {self.share:.0%} {self.where}"

    def settings(self) -> dict[str, Any]:
        """Return the share and the layers."""
        return {"name": "sap", "share": self.share, "layers": list(self.layers)}

    def prepare(
        self, model: InstrumentedModel, batch: Batch, *, generator: torch.Generator
    ) -> Change:
        """Prune each layer by an independent draw."""

        def change(layer: str, activation: Tensor, lengths: Tensor | None) -> Tensor:
            return activation * pruning_weights(
                activation, lengths, share=self.share, generator=generator
            )

        return change
