"""AudioNet, the 1-D convolutional speaker network of Jati et al. in SpeakerGuard's version."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from nip_audio.core.adapter import length_mask
from nip_audio.errors import InputError
from nip_audio.models._masking import Masks, remove_level, require_bands, require_frames
from nip_audio.models.channel_suppression import ChannelSuppression
from nip_audio.models.denoising import DenoisingBlock
from nip_audio.models.xvector import StatisticsPool, pooled_statistics

__all__ = ["AudioNet", "ConvLayer", "NetworkDefence", "Pooling"]

NetworkDefence = Literal["cas", "feature-denoising", "sns"]
"""Proactive defences that AudioNet can be trained with; ``sns`` adds no module to the network."""

Pooling = Literal["max", "statistics", "layers"]
"""What AudioNet makes of all frames: their maximum, their mean and standard deviation, or those of
every layer."""

LAYERS_DIM = 128
"""Values of an embedding with pooling ``layers``."""


class ConvLayer(nn.Module):
    """Convolution of width 3, batch normalisation, ReLU and, optionally, max pooling over pairs.

    Args:
        in_channels: Number C of input channels.
        out_channels: Number C' of output channels.
        pool: Halve the time axis by max pooling, rounding down.
        padding: 1 keeps the length of the time axis, 0 shortens it by two.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, pool: bool = False, padding: int = 1
    ) -> None:
        """Build the layer."""
        super().__init__()
        self.pool = pool
        self.padding = padding
        self.conv = nn.Conv1d(in_channels, out_channels, 3, padding=padding)
        self.norm = nn.BatchNorm1d(out_channels)

    def out_lengths(self, lengths: Tensor, *, pooled: bool = True) -> Tensor:
        """Return the valid positions after this layer; without ``pooled``, before its pooling."""
        lengths = lengths - 2 + 2 * self.padding
        return lengths // 2 if self.pool and pooled else lengths

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer: (B, C, T) → (B, C', T')."""
        y = self.norm(self.conv(x)).relu()
        return nn.functional.max_pool1d(y, 2) if self.pool else y


class AudioNet(nn.Module):
    """Closed-set speaker network of Jati et al. 2021.

    It applies a 5×5 filter to the spectrogram, then seven convolutions over time and the maximum
    over time. The paper on the neuron coverage change rate (NCCR) uses it for closed-set
    identification without enrolment (CSI-NE, Sec. 5).

    Deviation: the NCCR paper cites the AudioNet of AudioMNIST (Becker et al. 2018), but takes its
    attacks from SpeakerGuard, and this is SpeakerGuard's AudioNet. The overall level of each item
    is removed first. Items that are too short are an error; SpeakerGuard repeats them.

    The maximum over time sees one frame of each channel and so cannot average; ``statistics`` pools
    the mean and the standard deviation instead, as x-vectors do (Snyder et al. 2018). ``layers``
    pools those of the filtered features and of every layer, normalises them over the batch and
    projects them: the first of them are the long-term spectrum, which alone tells speakers of one
    recording apart.

    A proactive defence adds modules. ``feature-denoising`` adds a ``DenoisingBlock`` after each
    pooled layer; Xie et al. have one after each stage. ``cas`` adds a ``ChannelSuppression`` after
    the second-to-last layer. Deviation: Bai et al. have it after the last layer, before a mean;
    here a maximum over time follows, which needs non-negative values.

    Args:
        n_mels: Number F of mel bands of the input.
        defence: Proactive defence to build in; None builds the plain network.
        n_classes: Number of training classes, which only ``cas`` needs.
        pooling: What is made of all frames; with ``statistics`` the embedding is twice as large,
            with ``layers`` it has 128 values.

    Raises:
        InputError: If the defence or the pooling is unknown, or ``n_classes`` is missing for
            ``cas``.

    Example:
        >>> import torch
        >>> net = AudioNet().eval()
        >>> tuple(net(torch.rand(2, 32, 50), torch.tensor([50, 24])).shape)
        (2, 32)
    """

    CHANNELS = (64, 128, 128, 128, 128, 64, 32)
    POOLED = (0, 3, 5)
    min_frames = 24

    def __init__(
        self,
        n_mels: int = 32,
        *,
        defence: NetworkDefence | None = None,
        n_classes: int = 0,
        pooling: Pooling = "max",
    ) -> None:
        """Build the network."""
        super().__init__()
        if pooling not in get_args(Pooling):
            raise InputError(f"pooling is {pooling!r}, expected one of {get_args(Pooling)}")
        self.prefilter = nn.Sequential(nn.Conv2d(1, 1, 5, padding=2), nn.BatchNorm2d(1))
        widths = [n_mels, *self.CHANNELS]
        last = len(self.CHANNELS) - 1
        self.layers = nn.ModuleList(
            ConvLayer(before, after, pool=i in self.POOLED, padding=int(i != last))
            for i, (before, after) in enumerate(zip(widths[:-1], widths[1:], strict=True))
        )
        self.statistics = StatisticsPool() if pooling == "statistics" else None
        self.projection: nn.Sequential | None = None
        if pooling == "layers":
            pooled = 2 * sum(widths)
            self.projection = nn.Sequential(nn.BatchNorm1d(pooled), nn.Linear(pooled, LAYERS_DIM))
        self.pool = nn.Identity()  # gives the pooled layer a name to tap
        self.defences = nn.ModuleDict(self._defences(defence, n_classes))
        self.n_mels = n_mels
        dims = {"max": widths[-1], "statistics": 2 * widths[-1], "layers": LAYERS_DIM}
        self.embedding_dim = dims[pooling]

    def _defences(self, defence: NetworkDefence | None, n_classes: int) -> dict[str, nn.Module]:
        """Return the defence's modules by the index of the layer that each follows."""
        if defence == "cas":
            depth = len(self.CHANNELS) - 2
            return {str(depth): ChannelSuppression(self.CHANNELS[depth], n_classes)}
        if defence == "feature-denoising":
            return {str(depth): DenoisingBlock(self.CHANNELS[depth]) for depth in self.POOLED}
        if defence is not None and defence not in get_args(NetworkDefence):
            raise InputError(
                f"defence is {defence!r}, expected one of {get_args(NetworkDefence)} or None"
            )
        return {}

    def tap_lengths(self, layer: str, lengths: Tensor) -> Tensor:
        """Return the valid positions of a layer's output, given those of the input.

        Args:
            layer: Name of the layer, e.g. ``"layers.3"``.
            lengths: (B,) valid input frames.

        Returns:
            (B,) valid positions of that layer's output; undefined after the pooling.
        """
        parts = layer.split(".")
        if parts[0] in ("layers", "defences") and len(parts) > 1:
            depth = int(parts[1])
            for i, module in enumerate(list(self.layers)[: depth + 1]):
                # a layer's convolution and normalisation come before its max pooling
                pooled = i < depth or len(parts) == 2 or parts[0] == "defences"
                lengths = module.out_lengths(lengths, pooled=pooled)  # type: ignore[operator]
        return lengths

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed a batch of features.

        Args:
            x: (B, F, T) features.
            lengths: (B,) valid frames; None means all T.

        Returns:
            (B, 32) embeddings, with ``statistics`` (B, 64), all values at least 0; with ``layers``
            (B, 128).

        Raises:
            InputError: If F is not ``n_mels``, or an item has fewer than ``min_frames`` frames.
        """
        require_bands(x, self.n_mels)
        require_frames(x, lengths, self.min_frames)
        y = self.prefilter(remove_level(x, lengths)[:, None])[:, 0]
        statistics = [] if self.projection is None else [pooled_statistics(y, lengths)]
        for depth, layer in enumerate(self.layers):
            y = layer(Masks(lengths, y.shape[-1])(y))
            lengths = None if lengths is None else layer.out_lengths(lengths)  # type: ignore[operator]
            if str(depth) in self.defences:
                y = self.defences[str(depth)](y, lengths)
            if self.projection is not None:
                statistics.append(pooled_statistics(y, lengths))
        if self.projection is not None:
            pooled = self.projection(torch.cat(statistics, dim=1))
        elif self.statistics is not None:
            pooled = self.statistics(y, lengths)
        else:
            if lengths is not None:
                # values after a ReLU are never negative, so masked zeros do not change the maximum
                y = y * length_mask(lengths, y.shape[-1])[:, None]
            pooled = y.amax(dim=2)
        embedding: Tensor = self.pool(pooled)
        return embedding
