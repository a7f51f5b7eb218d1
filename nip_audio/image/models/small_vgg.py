"""A small VGG-like network: pairs of 3 × 3 convolutions with max pooling between them."""

from __future__ import annotations

from torch import Tensor, nn

from nip_audio.errors import InputError
from nip_audio.image.models._checks import require_images

__all__ = ["SmallVgg"]


class SmallVgg(nn.Module):
    """Three pairs of convolutions with batch normalisation, then mean pooling.

    On 32 × 32 images it needs a tenth of the multiplications of VGG11, so that training on a few
    thousand images takes minutes on one processor core.

    Args:
        width: Channels of the first pair; each further pair has twice as many.
        in_channels: Number C of image channels.

    Raises:
        InputError: If ``width`` is below 1.

    Example:
        >>> import torch
        >>> tuple(SmallVgg(8).eval()(torch.rand(2, 3, 32, 32)).shape)
        (2, 32)
    """

    def __init__(self, width: int = 24, in_channels: int = 3) -> None:
        """Build the network."""
        super().__init__()
        if width < 1:
            raise InputError(f"width is {width}, expected at least 1")
        self.in_channels = in_channels
        self.pairs = nn.ModuleList()
        before = in_channels
        for depth in range(3):
            after = width * 2**depth
            layers = [_unit(before, after), _unit(after, after)]
            if depth < 2:
                layers.append(nn.MaxPool2d(2))
            self.pairs.append(nn.Sequential(*layers))
            before = after
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.embedding_dim = before

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed images (B, C, H, W) in [0, 1]; returns (B, D). ``lengths`` is ignored."""
        require_images(x, self.in_channels)
        y = 4 * (x - 0.5)
        for pair in self.pairs:
            y = pair(y)
        pooled: Tensor = self.pool(y)
        return pooled


def _unit(before: int, after: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
    )
