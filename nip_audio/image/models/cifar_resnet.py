"""ResNets for images of CIFAR size, such as ResNet-20 (He et al. 2016, Sec. 4.2)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import pad

from nip_audio.errors import InputError
from nip_audio.image.models._checks import require_images

__all__ = ["CifarResNet"]


class _Block(nn.Module):
    """Two 3 × 3 convolutions and a shortcut without parameters (option A)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.grown = after - before
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        if self.grown:
            shortcut = pad(shortcut, (0, 0, 0, 0, self.grown // 2, self.grown - self.grown // 2))
        total: Tensor = (y + shortcut).relu()
        return total


class CifarResNet(nn.Module):
    """ResNet with a 3 × 3 stem, three stages of residual blocks and mean pooling.

    torchvision only has the ImageNet ResNets, whose stem halves a small image twice.

    Args:
        blocks: Residual blocks per stage; 3 give ResNet-20, 5 give ResNet-32.
        width: Channels of the first stage; each further stage has twice as many.
        in_channels: Number C of image channels.

    Raises:
        InputError: If ``blocks`` or ``width`` is below 1.

    Example:
        >>> import torch
        >>> net = CifarResNet().eval()
        >>> tuple(net(torch.rand(2, 3, 32, 32)).shape)
        (2, 64)
        >>> sum(p.numel() for p in net.parameters()) + 64 * 10 + 10  # the paper's 0.27 M
        269722
    """

    def __init__(self, blocks: int = 3, width: int = 16, in_channels: int = 3) -> None:
        """Build the network."""
        super().__init__()
        if blocks < 1 or width < 1:
            raise InputError(f"blocks is {blocks} and width is {width}, expected at least 1 each")
        self.in_channels = in_channels
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.stages = nn.ModuleList()
        before = width
        for stage in range(3):
            after = width * 2**stage
            layers = [_Block(before, after, 1 if stage == 0 else 2)]
            layers += [_Block(after, after, 1) for _ in range(blocks - 1)]
            self.stages.append(nn.Sequential(*layers))
            before = after
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.embedding_dim = before

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed images (B, C, H, W) in [0, 1]; returns (B, D). ``lengths`` is ignored."""
        require_images(x, self.in_channels)
        y = self.stem(4 * (x - 0.5))
        for stage in self.stages:
            y = stage(y)
        pooled: Tensor = self.pool(y)
        return pooled
