"""The ResNets of WeSpeaker (Wang et al., ICASSP 2023), built so that its checkpoints fit.

The architecture is He et al.'s for small images: a 3×3 stem without max pooling, 32 to 256
channels, statistics over time, one or two linear layers. Names of parameters are WeSpeaker's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nip_audio.core.adapter import length_mask, masked_mean
from nip_audio.errors import InputError
from nip_audio.models._masking import Masks, halved, require_bands, require_frames
from nip_audio.models.sources.kaldi import KaldiFeatures

__all__ = ["DEPTHS", "POOLINGS", "WeSpeakerResNet"]


class Depth(NamedTuple):
    """Blocks of the four stages, and whether a block has three convolutions."""

    blocks: tuple[int, int, int, int]
    bottleneck: bool


DEPTHS: Mapping[str, Depth] = {
    "ResNet18": Depth((2, 2, 2, 2), bottleneck=False),
    "ResNet34": Depth((3, 4, 6, 3), bottleneck=False),
    "ResNet50": Depth((3, 4, 6, 3), bottleneck=True),
    "ResNet101": Depth((3, 4, 23, 3), bottleneck=True),
    "ResNet152": Depth((3, 8, 36, 3), bottleneck=True),
    "ResNet221": Depth((6, 16, 48, 3), bottleneck=True),
    "ResNet293": Depth((10, 20, 64, 3), bottleneck=True),
}
"""Architectures by WeSpeaker's names."""

POOLINGS = ("TSTP", "TSDP", "TAP", "ASTP")
"""Poolings by WeSpeaker's names: mean and deviation, deviation, mean, and attentive statistics."""

VARIANCE_FLOOR = 1e-7


class WeSpeakerResNet(nn.Module):
    """Embed Kaldi features with a ResNet of WeSpeaker: (B, F, T) in [0, 1] → (B, D).

    Padding has no effect: what lies beyond an item's length is zero before every convolution.

    Args:
        depth: A name of ``DEPTHS``.
        features: Mapping from the front end's levels to the features of the training.
        bands: Number F of bands.
        embedding_dim: Size D of the embedding.
        pooling: A name of ``POOLINGS``.
        two_layers: Whether a second linear layer gives the embedding.
        variance_floor: Added to variances over time before the square root; pyannote.audio adds
            none.
        width: Channels of the first stage.

    Raises:
        InputError: If a name is unknown or a number is out of range.
    """

    min_frames = 9  # a standard deviation over time needs two positions after three halvings

    def __init__(
        self,
        depth: str,
        features: KaldiFeatures,
        *,
        bands: int = 80,
        embedding_dim: int = 256,
        pooling: str = "TSTP",
        two_layers: bool = False,
        variance_floor: float = VARIANCE_FLOOR,
        width: int = 32,
    ) -> None:
        super().__init__()
        if depth not in DEPTHS or pooling not in POOLINGS or bands < 8 or embedding_dim < 1:
            raise InputError(
                f"got {depth} with {pooling}, {bands} bands and {embedding_dim} dimensions, "
                f"expected one of {', '.join(DEPTHS)} with one of {', '.join(POOLINGS)}, at least "
                "8 bands and 1 dimension"
            )
        self.bands = bands
        self.features = features
        self.conv1 = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        blocks, bottleneck = DEPTHS[depth]
        channels = width
        for i, count in enumerate(blocks):
            stage = _Stage(channels, width * 2**i, count, bottleneck, stride=1 if i == 0 else 2)
            channels = stage.channels
            self.add_module(f"layer{i + 1}", stage)
        size = channels * (bands // 8)
        self.pool = _Attention(size) if pooling == "ASTP" else _Statistics(pooling, variance_floor)
        pooled = size if pooling in ("TAP", "TSDP") else 2 * size
        self.seg_1 = nn.Linear(pooled, embedding_dim)
        self.two_layers = two_layers
        if two_layers:
            self.seg_bn_1 = nn.BatchNorm1d(embedding_dim, affine=False)
            self.seg_2 = nn.Linear(embedding_dim, embedding_dim)
        self.output = nn.Identity()

    def tap_lengths(self, layer: str, lengths: Tensor) -> Tensor:
        """Return the valid positions of a layer's output, given those of the input.

        Args:
            layer: Name of the layer, e.g. ``"layer3"``.
            lengths: (B,) valid input frames.

        Returns:
            (B,) valid positions of that layer's output; undefined after the pooling.
        """
        stage = layer.split(".")[0]
        for _ in range(int(stage[-1]) - 1 if stage.startswith("layer") else 0):
            lengths = halved(lengths)
        return lengths

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed a batch of levels.

        Args:
            x: (B, F, T) levels in [0, 1].
            lengths: (B,) valid frames; None means all T.

        Returns:
            (B, D) embeddings.

        Raises:
            InputError: If F is another number of bands, or an item is too short.
        """
        require_bands(x, self.bands)
        require_frames(x, lengths, self.min_frames)
        masks = Masks(lengths, x.shape[2])
        y = self.features(x, lengths)[:, None]
        y = masks(self.bn1(self.conv1(y)).relu())
        for i in range(1, 5):
            before, masks = masks, masks.halve() if i > 1 else masks
            y = getattr(self, f"layer{i}")(y, masks, before)
        embedding = self.seg_1(self.pool(y.flatten(1, 2), masks.lengths))
        if self.two_layers:
            embedding = self.seg_2(self.seg_bn_1(embedding.relu()))
        out: Tensor = self.output(embedding)
        return out


class _Stage(nn.ModuleList):
    """Blocks of one width; the first may halve F and T, rounding up."""

    def __init__(
        self, channels: int, width: int, count: int, bottleneck: bool, *, stride: int
    ) -> None:
        super().__init__()
        block = _Bottleneck if bottleneck else _Basic
        for i in range(count):
            self.append(block(channels, width, stride if i == 0 else 1))
            channels = width * block.expansion
        self.channels = channels

    def forward(self, x: Tensor, masks: Masks, before: Masks) -> Tensor:
        """Apply the blocks; ``masks`` are those of their output, ``before`` those of ``x``."""
        for i, block in enumerate(self):
            x = block(x, masks, before if i == 0 else masks)
        return x


class _Block(nn.Module):
    """What both kinds of blocks share: the shortcut, with WeSpeaker's names."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * self.expansion
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )


class _Basic(_Block):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__(channels, width, stride)
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor, masks: Masks, before: Masks) -> Tensor:
        del before  # its first convolution has the stride
        y = masks(self.bn1(self.conv1(x)).relu())
        return masks((self.bn2(self.conv2(y)) + self.shortcut(x)).relu())


class _Bottleneck(_Block):
    expansion = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__(channels, width, stride)
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)

    def forward(self, x: Tensor, masks: Masks, before: Masks) -> Tensor:
        # the stride is in the middle, so the first convolution has the resolution of the input
        y = before(self.bn1(self.conv1(x)).relu())
        y = self.bn2(self.conv2(y)).relu()
        return masks((self.bn3(self.conv3(y)) + self.shortcut(x)).relu())


class _Statistics(nn.Module):
    """Mean and standard deviation over time, or one of them: (B, C, T) → (B, C or 2 C)."""

    def __init__(self, kind: str, variance_floor: float) -> None:
        super().__init__()
        self.kind = kind
        self.variance_floor = variance_floor

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        mean = masked_mean(x, lengths)
        if self.kind == "TAP":
            return mean
        count: Tensor | int = x.shape[2] if lengths is None else lengths[:, None]
        squares = masked_mean((x - mean[:, :, None]).square(), lengths)
        variance = squares * count / (count - 1)
        # the gradient of a square root at zero is infinite
        deviation = (variance + self.variance_floor).clamp_min(1e-20).sqrt()
        return deviation if self.kind == "TSDP" else torch.cat([mean, deviation], dim=1)


class _Attention(nn.Module):
    """Attentive statistics (Okabe et al., Interspeech 2018): (B, C, T) → (B, 2 C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear1 = nn.Conv1d(channels, 128, 1)
        self.linear2 = nn.Conv1d(128, channels, 1)

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        weights = self.linear2(self.linear1(x).tanh())
        if lengths is not None:
            padding = ~length_mask(lengths, x.shape[2])
            weights = weights.masked_fill(padding[:, None, :], float("-inf"))
        weights = weights.softmax(dim=2)
        mean = (weights * x).sum(dim=2)
        variance = (weights * x.square()).sum(dim=2) - mean.square()
        return torch.cat([mean, variance.clamp_min(VARIANCE_FLOOR).sqrt()], dim=1)
