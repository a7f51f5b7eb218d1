"""AudioNet: the 1-D convolutional network of Jati et al., as SpeakerGuard uses it."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from nip_audio.core.adapter import length_mask
from nip_audio.errors import InputError
from nip_audio.models._masking import Masks, remove_level, require_bands, require_frames
from nip_audio.models.channel_suppression import ChannelSuppression
from nip_audio.models.denoising import DenoisingBlock

__all__ = ["AudioNet", "ConvLayer", "NetworkDefence"]

NetworkDefence = Literal["cas", "feature-denoising", "sns"]
"""Proactive defences that it can be trained with; ``sns`` adds nothing to the network."""


class ConvLayer(nn.Module):
    """3-wide convolution, batch normalisation, ReLU, and where asked a maximum over pairs.

    Args:
        in_channels: C.
        out_channels: C'.
        pool: Whether the time axis is halved, rounding down.
        padding: 1 keeps the time axis, 0 shortens it by two.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, pool: bool = False, padding: int = 1
    ) -> None:
        """See the class."""
        super().__init__()
        self.pool = pool
        self.padding = padding
        self.conv = nn.Conv1d(in_channels, out_channels, 3, padding=padding)
        self.norm = nn.BatchNorm1d(out_channels)

    def out_lengths(self, lengths: Tensor, *, pooled: bool = True) -> Tensor:
        """Valid positions behind this layer, or where not ``pooled`` before its maximum."""
        lengths = lengths - 2 + 2 * self.padding
        return lengths // 2 if self.pool and pooled else lengths

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer: (B, C, T) → (B, C', T')."""
        y = self.norm(self.conv(x)).relu()
        return nn.functional.max_pool1d(y, 2) if self.pool else y


class AudioNet(nn.Module):
    """Closed-set speaker network of Jati et al. 2021; the NCCR paper's system for CSI-NE (Sec. 5).

    A 5×5 filter over the spectrogram, seven convolutions in time, the maximum over time.

    Deviation: the NCCR paper cites the AudioNet of AudioMNIST (Becker et al. 2018), but takes its
    attacks from SpeakerGuard, whose AudioNet this is. The overall level of each item is removed
    first, and items that are too short are an error rather than repeated.

    A proactive defence adds modules: ``feature-denoising`` a ``DenoisingBlock`` behind each pooled
    layer, as Xie et al. have one behind each stage; ``cas`` a ``ChannelSuppression`` behind the
    last layer but one. Deviation: Bai et al. have theirs behind the last, before a mean; here the
    maximum over time wants what is not negative.

    Args:
        n_mels: Bands F of the input.
        defence: None for the plain network.
        n_classes: Of the training, for ``cas`` alone.

    Raises:
        InputError: If the defence is unknown, or ``cas`` is not told the number of classes.

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
        self, n_mels: int = 32, *, defence: NetworkDefence | None = None, n_classes: int = 0
    ) -> None:
        """See the class."""
        super().__init__()
        self.prefilter = nn.Sequential(nn.Conv2d(1, 1, 5, padding=2), nn.BatchNorm2d(1))
        widths = [n_mels, *self.CHANNELS]
        last = len(self.CHANNELS) - 1
        self.layers = nn.ModuleList(
            ConvLayer(before, after, pool=i in self.POOLED, padding=int(i != last))
            for i, (before, after) in enumerate(zip(widths[:-1], widths[1:], strict=True))
        )
        self.pool = nn.Identity()  # a name by which the pooled layer is tapped
        self.defences = nn.ModuleDict(self._defences(defence, n_classes))
        self.n_mels = n_mels
        self.embedding_dim = widths[-1]

    def _defences(self, defence: NetworkDefence | None, n_classes: int) -> dict[str, nn.Module]:
        """Modules by the index of the layer that they come behind."""
        if defence == "cas":
            depth = len(self.CHANNELS) - 2
            return {str(depth): ChannelSuppression(self.CHANNELS[depth], n_classes)}
        if defence == "feature-denoising":
            return {str(depth): DenoisingBlock(self.CHANNELS[depth]) for depth in self.POOLED}
        if defence is not None and defence not in get_args(NetworkDefence):
            raise InputError(
                f"defence is {defence!r}, expected one of {get_args(NetworkDefence)}; or leave it "
                "out"
            )
        return {}

    def tap_lengths(self, layer: str, lengths: Tensor) -> Tensor:
        """Valid positions of a layer's output, given those of the input.

        Args:
            layer: A module name, e.g. ``"layers.3"``.
            lengths: (B,) valid input frames.

        Returns:
            (B,) valid positions of that layer's output; meaningless behind the pooling.
        """
        parts = layer.split(".")
        if parts[0] in ("layers", "defences") and len(parts) > 1:
            depth = int(parts[1])
            for i, module in enumerate(list(self.layers)[: depth + 1]):
                # the convolution and the normalisation inside a layer come before its maximum
                pooled = i < depth or len(parts) == 2 or parts[0] == "defences"
                lengths = module.out_lengths(lengths, pooled=pooled)  # type: ignore[operator]
        return lengths

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed.

        Args:
            x: (B, F, T) features.
            lengths: (B,) valid frames; None means all T.

        Returns:
            (B, 32) embeddings, none of them negative.

        Raises:
            InputError: If F is not ``n_mels``, or an item has fewer than ``min_frames`` frames.
        """
        require_bands(x, self.n_mels)
        require_frames(x, lengths, self.min_frames)
        y = self.prefilter(remove_level(x, lengths)[:, None])[:, 0]
        for depth, layer in enumerate(self.layers):
            y = layer(Masks(lengths, y.shape[-1])(y))
            lengths = None if lengths is None else layer.out_lengths(lengths)  # type: ignore[operator]
            if str(depth) in self.defences:
                y = self.defences[str(depth)](y, lengths)
        if lengths is not None:
            # behind a ReLU nothing is negative: masked zeros never win the maximum
            y = y * length_mask(lengths, y.shape[-1])[:, None]
        pooled: Tensor = self.pool(y.amax(dim=2))
        return pooled
