"""Wrap a network that takes waveforms and returns embeddings, whatever is inside.

Its front end is a complex spectrum that can be inverted, and its network begins with the inverse,
so that purifiers and attacks on the spectrogram work on it without knowing its features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nip_audio.audio.front_ends import ComplexSpectrogram
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import ModelCardError
from nip_audio.models.sources.base import embedder

__all__ = ["WaveformNetwork", "waveform_model"]


class WaveformNetwork(nn.Module):
    """A module of waveforms behind the inverse of a complex spectrum: (B, 2, F, T) → (B, D).

    Items of different lengths are embedded one by one, since how the module treats padding is
    unknown. The last layer, ``output``, is the embedding; it is the one layer of a black box.

    Args:
        module: Module called with (B, N) waveforms; it returns (B, D), or a shape that flattens to
            it.
        sample_rate_hz: Sample rate of the waveforms.
    """

    def __init__(self, module: nn.Module, sample_rate_hz: int) -> None:
        super().__init__()
        self.module = module
        self.spectrum = ComplexSpectrogram(sample_rate_hz)  # only its inverse is used
        self.output = nn.Identity()

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed complex spectra.

        Args:
            x: (B, 2, F, T) spectra in [0, 1].
            lengths: (B,) valid frames; None means all T.

        Returns:
            (B, D) embeddings.

        Raises:
            ModelCardError: If the module does not return one embedding an item.
        """
        if lengths is None or bool((lengths == x.shape[3]).all()):
            embedding: Tensor = self.output(self._embed(x))
        else:
            rows = [self._embed(x[i : i + 1, ..., : int(n)]) for i, n in enumerate(lengths)]
            embedding = self.output(torch.cat(rows))
        return embedding

    def _embed(self, x: Tensor) -> Tensor:
        out = self.module(self.spectrum.inverse(x))
        if isinstance(out, tuple | list) and len(out) and torch.is_tensor(out[-1]):
            out = out[-1]  # some networks return frames first, the embedding last
        if not torch.is_tensor(out) or out.shape[0] != len(x) or out.dim() < 2:
            got = tuple(out.shape) if torch.is_tensor(out) else type(out).__name__
            raise ModelCardError(
                f"the model returns {got} for {len(x)} waveforms, expected (batch, embedding size)"
            )
        embedding: Tensor = out.flatten(1)
        return embedding


def waveform_model(module: nn.Module, *, sample_rate_hz: int = 16000) -> InstrumentedModel:
    """Wrap a module of waveforms (B, N) → (B, D) as an instrumented model."""
    return embedder(WaveformNetwork(module, sample_rate_hz), ComplexSpectrogram(sample_rate_hz))
