"""AudioNet: the 1-D convolutional network of Jati et al., as SpeakerGuard uses it."""

from __future__ import annotations

from torch import Tensor, nn

from nip_audio.core.adapter import length_mask
from nip_audio.models._masking import Masks, remove_level, require_bands, require_frames

__all__ = ["AudioNet", "ConvLayer"]


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

    Args:
        n_mels: Bands F of the input.

    Example:
        >>> import torch
        >>> net = AudioNet().eval()
        >>> tuple(net(torch.rand(2, 32, 50), torch.tensor([50, 24])).shape)
        (2, 32)
    """

    CHANNELS = (64, 128, 128, 128, 128, 64, 32)
    POOLED = (0, 3, 5)
    min_frames = 24

    def __init__(self, n_mels: int = 32) -> None:
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
        self.n_mels = n_mels
        self.embedding_dim = widths[-1]

    def tap_lengths(self, layer: str, lengths: Tensor) -> Tensor:
        """Valid positions of a layer's output, given those of the input.

        Args:
            layer: A module name, e.g. ``"layers.3"``.
            lengths: (B,) valid input frames.

        Returns:
            (B,) valid positions of that layer's output; meaningless behind the pooling.
        """
        parts = layer.split(".")
        if parts[0] == "layers" and len(parts) > 1:
            depth = int(parts[1])
            for i, module in enumerate(list(self.layers)[: depth + 1]):
                # the convolution and the normalisation inside a layer come before its maximum
                pooled = i < depth or len(parts) == 2
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
        for layer in self.layers:
            y = layer(Masks(lengths, y.shape[-1])(y))
            lengths = None if lengths is None else layer.out_lengths(lengths)  # type: ignore[operator]
        if lengths is not None:
            # behind a ReLU nothing is negative: masked zeros never win the maximum
            y = y * length_mask(lengths, y.shape[-1])[:, None]
        pooled: Tensor = self.pool(y.amax(dim=2))
        return pooled
