"""Attentive statistics pooling, with SpeechBrain's weights, in a form that can be exported."""

from __future__ import annotations

import torch
from speechbrain.lobes.models.ECAPA_TDNN import AttentiveStatisticsPooling
from torch import Tensor

from nip_audio.core.adapter import length_mask

__all__ = ["AttentivePool"]


class AttentivePool(AttentiveStatisticsPooling):  # type: ignore[misc]
    """Mean and standard deviation over time, weighted by frame: (B, C, T) → (B, 2C, 1).

    It is SpeechBrain's layer with global context (Okabe et al. 2018; Desplanques et al. 2020), and
    gives the same numbers. SpeechBrain's own makes the number of items a constant of an exported
    graph.

    Args:
        channels: Channels C of the input.
        attention_channels: Channels of the attention.
    """

    def __init__(self, channels: int, attention_channels: int = 128) -> None:
        """Build the layer."""
        super().__init__(channels, attention_channels, global_context=True)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Pool (B, C, T); ``lengths`` (B,) are relative to T, and None is all of it."""
        mask = torch.ones_like(x[:, :1])
        if lengths is not None:
            size = x.shape[2]
            mask = mask * length_mask((lengths * size).ceil().long(), size)[:, None]

        def statistics(weights: Tensor) -> tuple[Tensor, Tensor]:
            mean = (weights * x).sum(dim=2, keepdim=True)
            variance = (weights * (x - mean).square()).sum(dim=2, keepdim=True)
            return mean, variance.clamp(self.eps).sqrt()

        everywhere = statistics(mask / mask.sum(dim=2, keepdim=True))
        context = torch.cat([x, *(one.expand_as(x) for one in everywhere)], dim=1)
        attention = self.conv(self.tanh(self.tdnn(context)))
        weights = attention.masked_fill(mask == 0, float("-inf")).softmax(dim=2)
        return torch.cat(statistics(weights), dim=1)
