"""Deep Speaker: a residual network with temporal averaging and length-normalised embeddings."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from nip_audio.core.adapter import masked_mean
from nip_audio.errors import InputError
from nip_audio.models._masking import Masks, halved, remove_level, require_bands, require_frames

__all__ = ["DeepSpeaker", "ResidualBlock"]


class ResidualBlock(nn.Module):
    """Two biased 3×3 convolutions around an identity shortcut (Li et al. 2017, Fig. 2)."""

    def __init__(self, channels: int, ceiling: float) -> None:
        """Build a block that keeps the shape (B, C, F, T); its ReLU is clipped at ``ceiling``."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(channels)
        self.clipped = nn.Hardtanh(0.0, ceiling)

    def forward(self, x: Tensor, masks: Masks) -> Tensor:
        """Apply the block to (B, C, F, T); ``masks`` zero the padding."""
        y = masks(self.clipped(self.norm1(self.conv1(x))))
        return masks(self.clipped(self.norm2(self.conv2(y)) + x))


class DownStage(nn.Module):
    """5×5 convolution with stride two, followed by residual blocks."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int, ceiling: float) -> None:
        """Build a stage that maps (B, C, F, T) to (B, C', ⌈F/2⌉, ⌈T/2⌉)."""
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 5, stride=2, padding=2)
        self.norm = nn.BatchNorm2d(out_channels)
        self.clipped = nn.Hardtanh(0.0, ceiling)
        self.blocks = nn.ModuleList(ResidualBlock(out_channels, ceiling) for _ in range(blocks))

    def forward(self, x: Tensor, masks: Masks) -> Tensor:
        """Apply the stage; ``masks`` are those of its output."""
        y = masks(self.clipped(self.norm(self.conv(x))))
        for block in self.blocks:
            y = block(y, masks)
        return y


class DeepSpeaker(nn.Module):
    """Residual network of Deep Speaker (Li et al. 2017).

    The paper on neuron-level inverse perturbation (NIP) uses it (Sec. 5.1). With the default sizes
    and a linear head for 30 speakers it has that paper's 24,201,118 parameters, including running
    statistics.

    Deviation: embeddings have length ``radius`` instead of 1, because a softmax over a linear head
    needs larger logits than unit vectors give; cosines between embeddings stay the same. The
    overall level of each item is removed first.

    Args:
        n_mels: Number F of mel bands of the input.
        channels: Channels of each stage.
        blocks: Residual blocks per stage.
        embedding_dim: Size D of the embedding.
        ceiling: Upper limit of the clipped ReLU.
        radius: Length of every embedding.

    Raises:
        InputError: If there is no stage, or the radius is not positive.

    Example:
        >>> import torch
        >>> net = DeepSpeaker(channels=[4, 8], embedding_dim=6).eval()
        >>> tuple(net(torch.rand(2, 64, 50), torch.tensor([50, 20])).shape)
        (2, 6)
    """

    min_frames = 1

    def __init__(
        self,
        n_mels: int = 64,
        *,
        channels: Sequence[int] = (64, 128, 256, 512),
        blocks: int = 3,
        embedding_dim: int = 512,
        ceiling: float = 20.0,
        radius: float = 16.0,
    ) -> None:
        """Build the network."""
        super().__init__()
        if not channels or not radius > 0:
            raise InputError(
                f"channels are {list(channels)} and radius is {radius}, expected at least one "
                "stage "
                "and a radius above 0"
            )
        widths = [1, *channels]
        self.stages = nn.ModuleList(
            DownStage(before, after, blocks, ceiling)
            for before, after in zip(widths[:-1], widths[1:], strict=True)
        )
        bands = n_mels
        for _ in channels:
            bands = -(-bands // 2)
        self.pool = nn.Identity()  # gives the pooled layer a name to tap
        self.affine = nn.Linear(widths[-1] * bands, embedding_dim)
        self.n_mels = n_mels
        self.radius = radius

    def tap_lengths(self, layer: str, lengths: Tensor) -> Tensor:
        """Return the valid positions of a layer's output, given those of the input.

        Args:
            layer: Name of the layer, e.g. ``"stages.2"``.
            lengths: (B,) valid input frames.

        Returns:
            (B,) valid positions of that layer's output; undefined after the pooling.
        """
        parts = layer.split(".")
        if parts[0] == "stages" and len(parts) > 1:
            for _ in range(int(parts[1]) + 1):
                lengths = halved(lengths)
        return lengths

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed a batch of features.

        Args:
            x: (B, F, T) features.
            lengths: (B,) valid frames; None means all T.

        Returns:
            (B, D) embeddings of length ``radius``.

        Raises:
            InputError: If F is not ``n_mels`` or an item has no valid frame.
        """
        require_bands(x, self.n_mels)
        require_frames(x, lengths, self.min_frames)
        y = remove_level(x, lengths)[:, None]
        masks = Masks(lengths, y.shape[-1])
        for stage in self.stages:
            masks = masks.halve()
            y = stage(y, masks)
        pooled = self.pool(masked_mean(y.flatten(1, 2), masks.lengths))
        return self.radius * nn.functional.normalize(self.affine(pooled), dim=1)
