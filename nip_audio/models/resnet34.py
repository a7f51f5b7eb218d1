"""ResNet-34 on log-mel spectrograms, a speaker model of the NIP paper.

NIP is neuron-level inverse perturbation (Chen et al., arXiv 2112.13060).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from nip_audio.core.adapter import masked_mean
from nip_audio.errors import InputError
from nip_audio.models._masking import (
    Masks,
    halved,
    relative_lengths,
    remove_level,
    require_bands,
    require_frames,
)
from nip_audio.models.attentive import AttentivePool

__all__ = ["BasicBlock", "Pooling", "ResNet34"]

Pooling = Literal["average", "attentive"]


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
    """ResNet-34 (He et al. 2016) with one input channel.

    With average pooling it is a speaker model of the NIP paper (Sec. 5.1). With ``width=64`` and a
    linear head for 30 speakers it has that paper's 21,315,166 parameters, including running
    statistics: convolutions have no bias, and the first block has a projection too. The embedding
    is the pooled layer, which NIP taps.

    With attentive pooling (Okabe et al. 2018, SpeechBrain's layer, as in its and WeSpeaker's
    ResNets) the pooled layer is the mean and standard deviation over time of every channel in
    every band, weighted by frame, and the embedding is a linear map of it.

    Deviation: the overall level of each item is removed first, so that gain has no effect.

    Args:
        width: Channels of the first stage; the others have 2, 4 and 8 times as many.
        blocks: Number of blocks in each of the four stages.
        pooling: ``average`` over bands and time, or ``attentive``.
        n_mels: Number F of mel bands of the input; attentive pooling needs it.
        embedding_dim: Size D of the embedding; attentive pooling needs it.
        attention_channels: Channels of the attention.

    Raises:
        InputError: If the pooling is another, or one of its two sizes is missing or not wanted.

    Example:
        >>> import torch
        >>> net = ResNet34(width=4).eval()
        >>> tuple(net(torch.rand(2, 64, 50), torch.tensor([50, 20])).shape)
        (2, 32)
    """

    min_frames = 1

    def __init__(
        self,
        *,
        width: int = 64,
        blocks: Sequence[int] = (3, 4, 6, 3),
        pooling: Pooling = "average",
        n_mels: int | None = None,
        embedding_dim: int | None = None,
        attention_channels: int = 64,
    ) -> None:
        """Build the network."""
        super().__init__()
        if pooling not in get_args(Pooling):
            raise InputError(f"pooling is {pooling!r}, expected one of {get_args(Pooling)}")
        sizes = (n_mels, embedding_dim)
        if (None in sizes) if pooling == "attentive" else sizes != (None, None):
            raise InputError(
                f"got n_mels {n_mels} and embedding_dim {embedding_dim} for {pooling} pooling; "
                "pass both for attentive pooling, and none for average pooling"
            )
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
        self.n_mels = n_mels
        self.pool: nn.Module = nn.Identity()  # gives the pooled layer a name to tap
        self.embedding_dim = channels
        if n_mels is not None and embedding_dim is not None:
            rows = n_mels
            for _ in range(len(blocks) + 1):
                rows = (rows + 1) // 2
            self.pool = AttentivePool(channels * rows, attention_channels)
            self.pool_norm = nn.BatchNorm1d(2 * channels * rows)
            self.embedding = nn.Linear(2 * channels * rows, embedding_dim)
            self.embedding_dim = embedding_dim

    def tap_lengths(self, layer: str, lengths: Tensor) -> Tensor:
        """Return the valid positions of a layer's output, given those of the input.

        Args:
            layer: Name of the layer, e.g. ``"stages.2.0"``.
            lengths: (B,) valid input frames.

        Returns:
            (B,) valid positions of that layer's output: 1 of attentive pooling, and undefined
            behind the pooling.
        """
        if layer == "pool":
            return torch.ones_like(lengths)
        parts = layer.split(".")
        halvings = {"stem": 1, "stem_pool": 2, "pool": 1 + len(self.stages)}.get(parts[0], 0)
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
            (B, 8 · width) embeddings, or (B, D) with attentive pooling.

        Raises:
            InputError: If an item has no valid frame, or F is not ``n_mels``.
        """
        if self.n_mels is not None:
            require_bands(x, self.n_mels)
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
        if self.n_mels is None:
            average: Tensor = self.pool(masked_mean(y, masks.lengths))
            return average
        relative = relative_lengths(masks.lengths, y.shape[-1])
        pooled: Tensor = self.pool(y.flatten(1, 2), relative).flatten(1)
        embedding: Tensor = self.embedding(self.pool_norm(pooled))
        return embedding
