"""ECAPA-TDNN, SpeechBrain's network, on log-mel spectrograms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN, Conv1d
from torch import Tensor

from nip_audio.errors import InputError
from nip_audio.models._masking import (
    Masks,
    relative_lengths,
    remove_level,
    require_bands,
    require_frames,
)
from nip_audio.models.attentive import AttentivePool

__all__ = ["EcapaTdnn"]


class EcapaTdnn(ECAPA_TDNN):  # type: ignore[misc]
    """ECAPA-TDNN speaker embedding network (Desplanques et al. 2020), with SpeechBrain's layers.

    Time-delay layers with squeeze and excitation over groups of channels, whose outputs are pooled
    together by a mean and standard deviation that attend to frames. The overall level of each item
    is removed first, so that gain has no effect.

    Deviation: SpeechBrain fills up what a convolution reads beyond an item with its mirror image;
    here it is zero, and padding is masked, so that a padded batch gives the same result as its
    single items. SpeechBrain's own models keep theirs (``nip_audio.models.sources``).

    Args:
        n_mels: Number F of mel bands of the input.
        channels: Output channels of the frame layers: one time-delay layer, any number of blocks,
            and the layer that takes all of their outputs.
        embedding_dim: Size D of the embedding.
        attention_channels: Channels of the attention of the pooling.
        se_channels: Channels to which a block is squeezed.
        res2net_scale: Groups of channels of a block; it must divide the channels.

    Raises:
        InputError: If there are fewer than three channel counts, or the scale does not divide them.

    Example:
        >>> net = EcapaTdnn(8, channels=[8, 8, 8], embedding_dim=4, res2net_scale=2).eval()
        >>> tuple(net(torch.rand(2, 8, 50), torch.tensor([50, 20])).shape)
        (2, 4)
    """

    min_frames = 1
    KERNELS = (5, 3, 3, 3, 1)
    DILATIONS = (1, 2, 3, 4, 1)

    def __init__(
        self,
        n_mels: int = 80,
        *,
        channels: Sequence[int] = (1024, 1024, 1024, 1024, 3072),
        embedding_dim: int = 192,
        attention_channels: int = 128,
        se_channels: int = 128,
        res2net_scale: int = 8,
    ) -> None:
        """Build the network."""
        if not 3 <= len(channels) <= len(self.KERNELS):
            raise InputError(
                f"got {len(channels)} channel counts, expected 3 to {len(self.KERNELS)}: a first "
                "layer, one to three blocks, and the layer behind them"
            )
        if any(count % res2net_scale for count in channels[:-1]):
            raise InputError(
                f"res2net_scale {res2net_scale} does not divide the channels {list(channels[:-1])};"
                " pass multiples of it"
            )
        inner = len(channels) - 1
        super().__init__(
            n_mels,
            channels=list(channels),
            kernel_sizes=[*self.KERNELS[:inner], self.KERNELS[-1]],
            dilations=[*self.DILATIONS[:inner], self.DILATIONS[-1]],
            groups=[1] * len(channels),
            lin_neurons=embedding_dim,
            attention_channels=attention_channels,
            se_channels=se_channels,
            res2net_scale=res2net_scale,
        )
        self.n_mels = n_mels
        self.asp = AttentivePool(channels[-1], attention_channels)
        for module in self.modules():
            if isinstance(module, Conv1d):
                module.padding_mode = "constant"

    def tap_lengths(self, layer: str, lengths: Tensor) -> Tensor:
        """Return the valid positions of a layer's output, given those of the input.

        Args:
            layer: Name of the layer, e.g. ``"blocks.2"``.
            lengths: (B,) valid input frames.

        Returns:
            (B,) valid frames of that layer's output; 1 where it has pooled them.
        """
        pooled = layer == "asp" or layer.startswith(("asp_bn", "fc")) or ".se_block." in layer
        return torch.ones_like(lengths) if pooled else lengths

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed a batch of features.

        Args:
            x: (B, F, T) features.
            lengths: (B,) valid frames; None means all T.

        Returns:
            (B, D) embeddings, not normalised.

        Raises:
            InputError: If F is not ``n_mels``, or an item has no valid frame.
        """
        require_bands(x, self.n_mels)
        require_frames(x, lengths, self.min_frames)
        total = x.shape[2]
        x = remove_level(x, lengths)
        with self._masked(Masks(lengths, total)):
            embedding: Tensor = super().forward(x.transpose(1, 2), relative_lengths(lengths, total))
        return embedding.flatten(1)

    def _convolutions(self) -> Iterator[Conv1d]:
        """Yield the convolutions that read neighbouring frames."""
        for module in self.modules():
            if isinstance(module, Conv1d) and module.kernel_size > 1:
                yield module

    @contextmanager
    def _masked(self, masks: Masks) -> Iterator[None]:
        """Let every convolution that reads neighbouring frames find zeros behind an item."""
        handles = []
        if masks.lengths is not None:
            handles = [
                conv.register_forward_pre_hook(lambda _, args: (masks(args[0]), *args[1:]))
                for conv in self._convolutions()
            ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
