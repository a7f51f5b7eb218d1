"""ResNet-34 on log-mel spectrograms, with the parameter count of the NIP paper."""

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
        in_channels: C.
        out_channels: C'.
        stride: 1 keeps F and T, 2 halves both, rounding up.
        project: Whether the shortcut is a 1×1 convolution with normalisation.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, project: bool = False
    ) -> None:
        """See the class."""
        super().__init__()
        if not project and (stride != 1 or in_channels != out_channels):
            raise InputError("a block that changes its shape needs project=True")
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
    """Blocks of one width, the first of which may halve F and T: one layer to tap."""

    def forward(self, x: Tensor, masks: Masks) -> Tensor:
        """Apply the blocks; ``masks`` are those of their output."""
        for block in self:
            x = block(x, masks)
        return x


class ResNet34(nn.Module):
    """Plain ResNet-34 (He et al. 2016) with one input channel and global average pooling.

    The NIP paper's speaker model (Sec. 5.1). With ``width=64`` and a dense head for 30 speakers it
    has the paper's 21,315,166 parameters, running statistics counted: convolutions without bias,
    and a projection in the first block too. The embedding is the pooled layer, which is the one NIP
    taps.

    Deviation: the overall level of each item is removed first, so that gain does not matter.

    Args:
        width: Channels of the first stage; the others have 2, 4 and 8 times as many.
        blocks: Blocks of the four stages.

    Example:
        >>> import torch
        >>> net = ResNet34(width=4).eval()
        >>> tuple(net(torch.rand(2, 64, 50), torch.tensor([50, 20])).shape)
        (2, 32)
    """

    min_frames = 1

    def __init__(self, *, width: int = 64, blocks: Sequence[int] = (3, 4, 6, 3)) -> None:
        """See the class."""
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
        self.pool = nn.Identity()  # a name by which the pooled layer is tapped
        self.embedding_dim = channels

    def tap_lengths(self, layer: str, lengths: Tensor) -> Tensor:
        """Valid positions of a layer's output, given those of the input.

        Args:
            layer: A module name, e.g. ``"stages.2.0"``.
            lengths: (B,) valid input frames.

        Returns:
            (B,) valid positions of that layer's output; meaningless behind the pooling.
        """
        parts = layer.split(".")
        halvings = {"stem": 1, "stem_pool": 2}.get(parts[0], 0)
        if parts[0] == "stages" and len(parts) > 1:
            halvings = 2 + int(parts[1])
        for _ in range(halvings):
            lengths = halved(lengths)
        return lengths

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed.

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
        # behind a ReLU nothing is negative: masked zeros never win the maximum
        masks = masks.halve()
        y = masks(self.stem_pool(y))
        for depth, stage in enumerate(self.stages):
            masks = masks.halve() if depth > 0 else masks
            y = stage(y, masks)
        pooled: Tensor = self.pool(masked_mean(y, masks.lengths))
        return pooled
