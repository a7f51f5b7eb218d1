"""Smooth feature maps inside the network (feature denoising)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from nip_audio.core.adapter import length_mask
from nip_audio.errors import InputError
from nip_audio.models._masking import Masks

__all__ = ["DenoisingBlock", "Filter"]

Filter = Literal["gaussian", "dot", "mean"]
"""Non-local means with softmax weights or with dot products, or a mean of width 3."""


class DenoisingBlock(nn.Module):
    """Denoising block: a filter over time, a 1×1 convolution, normalisation and a skip connection.

    Source: Xie et al., CVPR 2019, arXiv 1812.03411, Sec. 4. Position i of a filtered map is
    Σ_j f(x_i, x_j) x_j / C over all positions j. For ``gaussian``, f = exp(θ(x_i)·φ(x_j)/√d), where
    θ and φ are 1×1 convolutions to d = K/2 channels, and C = Σ_j f; for ``dot``, f = x_i·x_j, and C
    is the number of positions. ``mean`` averages three neighbours.

    The normalisation starts with a scale of 0, so an untrained block does not change its input.

    Deviation: the maps are (K, T) over time, those of the paper are images. The paper's bilateral
    and median filters are left out.

    Args:
        channels: Number K of channels.
        kind: Filter to use.

    Raises:
        InputError: If the filter is unknown.

    Example:
        >>> x = torch.rand(2, 8, 5)
        >>> torch.equal(DenoisingBlock(8)(x), x)
        True
    """

    def __init__(self, channels: int, *, kind: Filter = "gaussian") -> None:
        """Build the block."""
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
        """Denoise activations.

        Args:
            x: (B, K, T) activations.
            lengths: (B,) valid positions; None means all T.

        Returns:
            (B, K, T) denoised activations; values in the padding are undefined.
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
