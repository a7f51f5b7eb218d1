"""Feature denoising: smooth feature maps inside the network."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from nip_audio.core.adapter import length_mask
from nip_audio.errors import InputError
from nip_audio.models._masking import Masks

__all__ = ["DenoisingBlock", "Filter"]

Filter = Literal["gaussian", "dot", "mean"]
"""Non-local means with a softmax over embedded positions, with plain products, or a 3-wide mean."""


class DenoisingBlock(nn.Module):
    """Filter over time, 1×1 convolution, normalisation, and the input added.

    Xie et al., CVPR 2019, arXiv 1812.03411, Sec. 4. Position i of a filtered map is
    Σ_j f(x_i, x_j) x_j / C over all positions j. For ``gaussian``, f = exp(θ(x_i)·φ(x_j)/√d), where
    θ and φ are 1×1 convolutions to d = K/2 channels, and C = Σ_j f; for ``dot``, f = x_i·x_j, and C
    is the number of positions. ``mean`` is the mean of three neighbours.

    The normalisation starts at a scale of 0: an untrained block changes nothing.

    Deviation: maps over time, (K, T), where the paper's are images; its bilateral and median
    filters are left out.

    Args:
        channels: K.
        kind: Of the filter.

    Raises:
        InputError: For an unknown filter.

    Example:
        >>> x = torch.rand(2, 8, 5)
        >>> torch.equal(DenoisingBlock(8)(x), x)
        True
    """

    def __init__(self, channels: int, *, kind: Filter = "gaussian") -> None:
        """See the class."""
        super().__init__()
        if kind not in get_args(Filter):
            raise InputError(f"filter is {kind!r}, expected one of {get_args(Filter)}")
        self.kind: Filter = kind
        if kind == "gaussian":
            width = max(1, channels // 2)
            self.theta = nn.Conv1d(channels, width, 1, bias=False)
            self.phi = nn.Conv1d(channels, width, 1, bias=False)
        self.conv = nn.Conv1d(channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm1d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Denoise: (B, K, T) → (B, K, T); what comes out in the padding means nothing.

        Args:
            x: Activations.
            lengths: (B,) valid positions; None means all T.
        """
        out: Tensor = x + self.norm(self.conv(self._filter(x, lengths)))
        return out

    def _filter(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        x = Masks(lengths, x.shape[-1])(x)
        if self.kind == "mean":
            mean: Tensor = nn.functional.avg_pool1d(x, 3, stride=1, padding=1)
            return mean
        if self.kind == "dot":
            positions = x.shape[-1] if lengths is None else lengths[:, None, None]
            similar: Tensor = x @ (x.mT @ x) / positions
            return similar
        theta, phi = self.theta(x), self.phi(x)
        affinity = theta.mT @ phi / theta.shape[1] ** 0.5
        if lengths is not None:
            valid = length_mask(lengths, x.shape[-1])[:, None, :]
            affinity = affinity.masked_fill(~valid, -torch.inf)
        smooth: Tensor = x @ affinity.softmax(dim=2).mT
        return smooth
