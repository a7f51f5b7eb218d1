"""LeNet-1, LeNet-4 and LeNet-5: two convolutions, then up to two dense layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nip_audio.image.models._checks import require_images

__all__ = ["LeNet1", "LeNet4", "LeNet5"]


class _LeNet(nn.Module):
    """Two stages of convolution, ReLU and max pooling, then dense layers with ReLU.

    Deviation: LeCun et al. 1998 use tanh, trainable sub-sampling and a radial head. The papers that
    we compare with train networks with ReLU, max pooling and a linear head.
    """

    def __init__(
        self,
        widths: tuple[int, int],
        dense: tuple[int, ...],
        *,
        padding: int,
        in_channels: int,
        size: int,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.size = size
        self.convs = nn.ModuleList(
            [
                _stage(in_channels, widths[0], padding),
                _stage(widths[0], widths[1], 0),
            ]
        )
        self.flatten = nn.Flatten()
        with torch.no_grad():
            flat = self._trunk(torch.zeros(1, in_channels, size, size)).shape[1]
        sizes = (flat, *dense)
        self.dense = nn.ModuleList(
            nn.Sequential(nn.Linear(before, after), nn.ReLU())
            for before, after in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.embedding_dim = sizes[-1]

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed images (B, C, size, size) in [0, 1]; returns (B, D). ``lengths`` is ignored."""
        require_images(x, self.in_channels, self.size)
        y = self._trunk(x)
        for layer in self.dense:
            y = layer(y)
        return y

    def _trunk(self, x: Tensor) -> Tensor:
        for stage in self.convs:
            x = stage(x)
        flat: Tensor = self.flatten(x)
        return flat


def _stage(before: int, after: int, padding: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 5, padding=padding), nn.ReLU(), nn.MaxPool2d(2))


class LeNet1(_LeNet):
    """LeNet-1: 4 and 12 filters of 5 × 5; the flattened map is the embedding.

    Args:
        in_channels: Number C of image channels.
        size: Height and width of the images.

    Example:
        >>> tuple(LeNet1()(torch.rand(2, 1, 28, 28)).shape)
        (2, 192)
    """

    def __init__(self, in_channels: int = 1, size: int = 28) -> None:
        """Build the network."""
        super().__init__((4, 12), (), padding=0, in_channels=in_channels, size=size)


class LeNet4(_LeNet):
    """LeNet-4: 6 and 16 filters of 5 × 5, then a dense layer of 84 units.

    Args:
        in_channels: Number C of image channels.
        size: Height and width of the images.
    """

    def __init__(self, in_channels: int = 1, size: int = 28) -> None:
        """Build the network."""
        super().__init__((6, 16), (84,), padding=0, in_channels=in_channels, size=size)


class LeNet5(_LeNet):
    """LeNet-5: 6 and 16 filters of 5 × 5, then dense layers of 120 and 84 units.

    Args:
        in_channels: Number C of image channels.
        size: Height and width of the images.

    Example:
        >>> net = LeNet5()
        >>> tuple(net(torch.rand(2, 1, 28, 28)).shape)
        (2, 84)
        >>> sum(p.numel() for p in net.parameters()) + 84 * 10 + 10  # with a head for ten classes
        61706
    """

    def __init__(self, in_channels: int = 1, size: int = 28) -> None:
        """Build the network."""
        super().__init__((6, 16), (120, 84), padding=2, in_channels=in_channels, size=size)
