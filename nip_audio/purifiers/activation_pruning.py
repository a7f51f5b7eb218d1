"""SAP: keep a random few of a layer's activations, the larger ones more often."""

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
    """Draw by what each activation is multiplied: 0, or 1/(1 − (1 − p)^r) where it was drawn.

    r are drawn with replacement, each with probability p = |h|/Σ|h| of its item, so that the mean
    over draws is 1 wherever h is not 0 (SAP, Alg. 1).

    Args:
        activation: (B, N) or (B, N, *S).
        lengths: (B,) valid positions of the last axis, the only ones that are drawn; None means
            all.
        share: r as a share of the item's activations; at least one is drawn.
        generator: Source of randomness, on the CPU.

    Returns:
        As ``activation``, without gradient.

    Example:
        >>> h = torch.tensor([[0.0, 2.0, 0.0]])
        >>> pruning_weights(h, None, share=1.0, generator=torch.Generator()).tolist()
        [[0.0, 1.0, 0.0]]
    """
    h = activation.detach()
    valid = Batch(torch.ones_like(h, dtype=torch.float64), lengths).masked().flatten(1).cpu()
    size = Batch(h.abs().double(), lengths).masked().flatten(1).cpu()
    # where nothing is active, whatever is drawn stays 0
    size = torch.where(size.sum(dim=1, keepdim=True) > 0, size, valid)
    p = size / size.sum(dim=1, keepdim=True)
    draws = (share * valid.sum(dim=1, keepdim=True)).round().clamp_min(1.0)
    drawn = torch.multinomial(p, int(draws.max()), replacement=True, generator=generator)
    # a shorter item's surplus draws go into a column of their own
    drawn[torch.arange(drawn.shape[1])[None] >= draws] = p.shape[1]
    kept = torch.zeros(len(p), p.shape[1] + 1).scatter_(1, drawn, 1.0)[:, :-1] > 0
    survival = -torch.expm1(draws * torch.log1p(-p))
    weights = torch.where(kept, torch.where(kept, survival, 1.0).reciprocal(), 0.0)
    return weights.reshape(h.shape).to(h)


class ActivationPruning(LayerDefence):
    """Stochastic activation pruning (SAP; Dhillon et al., ICLR 2018, arXiv 1803.01442, Alg. 1).

    In every forward pass each layer's activations are drawn with replacement in proportion to their
    magnitudes; what is never drawn becomes 0, what is drawn is divided by the probability of being
    drawn at all, so that the mean over draws is the layer's own output. Nothing is trained.

    Factors are constants in the backward pass: averaged over draws, the gradient is then just that
    of the mean activation, so that EOT works. Differentiating the factors as well would miss how
    the draw itself depends on the input.

    Deviation: the paper prunes behind every activation function, this what ``layers`` names; one
    call is one draw, where the authors average an answer over many, which an evaluation or an
    attacker can do outside.

    Args:
        layers: Names of the layers, e.g. the default taps of a model's card.
        share: Draws as a share of a layer's activations; 1 is that of the authors' script.

    Raises:
        InputError: If no layer is named, or the share makes no sense.
    """

    def __init__(self, *, layers: Sequence[str] = (), share: float = 1.0) -> None:
        """See the class."""
        check_number("share", share, 0.01, 10.0, usual=1.0)
        if isinstance(layers, str) or not layers:
            raise InputError(
                f"layers is {layers!r}, expected a list of one name or more; the default taps of "
                "the model's card will do"
            )
        self.layers = tuple(layers)
        self.share = share

    @property
    def name(self) -> str:
        """Name with share and layers."""
        return f"SAP {self.share:.0%} {self.where}"

    def settings(self) -> dict[str, Any]:
        """Return share and layers."""
        return {"name": "sap", "share": self.share, "layers": list(self.layers)}

    def prepare(
        self, model: InstrumentedModel, batch: Batch, *, generator: torch.Generator
    ) -> Change:
        """Prune each layer by a draw of its own."""

        def change(layer: str, activation: Tensor, lengths: Tensor | None) -> Tensor:
            return activation * pruning_weights(
                activation, lengths, share=self.share, generator=generator
            )

        return change
