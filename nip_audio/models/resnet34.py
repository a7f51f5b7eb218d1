"""ResNet-34 on log-mel spectrograms, a speaker model of the NIP paper.

NIP is neuron-level inverse perturbation (Chen et al., arXiv 2112.13060).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from nip_audio.core.adapter import masked_mean
from nip_audio.errors import InputError
from nip_audio.models._masking import Masks, halved, remove_level, require_frames

__all__ = ["BasicBlock", "ResNet34"]


class BasicBlock(nn.Module):
    """Two 3×3 convolutions around a shortcut (He et al. 2016): (B, C, F, T) → (B, C', F', T').

    Args:
        in_channels: Number C of input channels.
        out_channels: Number C' of output channels.
        stride: 1 keeps F and T, 2 halves both, rounding up.
        project: Use a 1×1 convolution with normalisation as the shortcut.

    Raises:
        InputError: If the block changes its shape without ``project``.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, project: bool = False
    ) -> None:
        """Build the block."""
        super().__init__()
        if not project and (stride != 1 or in_channels != out_channels):
            raise InputError(
                f"the block maps {in_channels} to {out_channels} channels with stride "
                f"{stride}, which "
                "needs project=True"
            )
        self.stride = stride
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if project:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor, masks: Masks) -> Tensor:
        """Apply the block; ``masks`` are those of its output."""
        y = masks(self.norm1(self.conv1(x)).relu())
        y = self.norm2(self.conv2(y)) + self.shortcut(x)
        return masks(y.relu())


class Stage(nn.ModuleList):
    """Blocks of one width, which can be tapped as one layer; the first may halve F and T."""

    def forward(self, x: Tensor, masks: Masks) -> Tensor:
        """Apply the blocks; ``masks`` are those of their output."""
        for block in self:
            x = block(x, masks)
        return x


class ResNet34(nn.Module):
    """ResNet-34 (He et al. 2016) with one input channel and global average pooling.

    It is a speaker model of the NIP paper (Sec. 5.1). With ``width=64`` and a linear head for 30
    speakers it has that paper's 21,315,166 parameters, including running statistics: convolutions
    have no bias, and the first block has a projection too. The embedding is the pooled layer, which
    NIP taps.

    Deviation: the overall level of each item is removed first, so that gain has no effect.

    Args:
        width: Channels of the first stage; the others have 2, 4 and 8 times as many.
        blocks: Number of blocks in each of the four stages.

    Example:
        >>> import torch
        >>> net = ResNet34(width=4).eval()
        >>> tuple(net(torch.rand(2, 64, 50), torch.tensor([50, 20])).shape)
        (2, 32)
    """

    min_frames = 1

    def __init__(self, *, width: int = 64, blocks: Sequence[int] = (3, 4, 6, 3)) -> None:
        """Build the network."""
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.stem_pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = nn.ModuleList()
        channels = width
        for depth, count in enumerate(blocks):
            out = width * 2**depth
            stage = Stage()
            for i in range(count):
                stride = 2 if depth > 0 and i == 0 else 1
                stage.append(BasicBlock(channels, out, stride=stride, project=i == 0))
                channels = out
            self.stages.append(stage)
        self.pool = nn.Identity()  # gives the pooled layer a name to tap
        self.embedding_dim = channels

    def tap_lengths(self, layer: str, lengths: Tensor) -> Tensor:
        """Return the valid positions of a layer's output, given those of the input.

        Args:
            layer: Name of the layer, e.g. ``"stages.2.0"``.
            lengths: (B,) valid input frames.

        Returns:
            (B,) valid positions of that layer's output; undefined after the pooling.
        """
        parts = layer.split(".")
        halvings = {"stem": 1, "stem_pool": 2}.get(parts[0], 0)
        if parts[0] == "stages" and len(parts) > 1:
            halvings = 2 + int(parts[1])
        for _ in range(halvings):
            lengths = halved(lengths)
        return lengths

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed a batch of features.

        Args:
            x: (B, F, T) features.
            lengths: (B,) valid frames; None means all T.

        Returns:
            (B, 8 · width) embeddings.

        Raises:
            InputError: If an item has no valid frame.
        """
        require_frames(x, lengths, self.min_frames)
        y = remove_level(x, lengths)[:, None]
        masks = Masks(lengths, y.shape[-1]).halve()
        y = masks(self.stem(y))
        # values after a ReLU are never negative, so masked zeros do not change the maximum
        masks = masks.halve()
        y = masks(self.stem_pool(y))
        for depth, stage in enumerate(self.stages):
            masks = masks.halve() if depth > 0 else masks
            y = stage(y, masks)
        pooled: Tensor = self.pool(masked_mean(y, masks.lengths))
        return pooled
