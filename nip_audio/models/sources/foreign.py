"""Run networks that other programs made, and find out what they can do before they are used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import ModelCardError
from nip_audio.models.sources.base import SourceSpec, embedder
from nip_audio.models.sources.kaldi import KaldiFbank, KaldiFeatures
from nip_audio.models.sources.waveforms import waveform_model

__all__ = [
    "FOREIGN_ERRORS",
    "Abilities",
    "Contained",
    "FeatureNetwork",
    "contained_waveforms",
    "embeddings_of",
    "feature_model",
    "file_of",
    "probe",
    "rate_of",
    "same",
    "waveforms_to_try",
    "weighed",
]

FOREIGN_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What code of others raises when it is given something that it cannot handle."""

AGREEMENT = 1e-4
"""Largest difference between two ways of computing the same, relative to the largest value. Fused
layers and other orders of sums differ by a hundredth of it."""


class Abilities(NamedTuple):
    """What a network was found to do.

    Attributes:
        size: Size D of its embedding.
        batches: Whether several items at once give what they give one by one.
        differentiable: Whether gradients reach the input.
    """

    size: int
    batches: bool
    differentiable: bool


class Contained(nn.Module):
    """A network made elsewhere, always in evaluation mode: (B, …) → (B, D).

    Args:
        net: The network.
        batches: Whether it takes several items at once; if not, they are embedded one by one.
        channel: Whether its waveforms have an axis for channels: (B, 1, N).
    """

    def __init__(self, net: nn.Module, *, batches: bool = True, channel: bool = False) -> None:
        super().__init__()
        self.net = net
        self.batches = batches
        self.channel = channel

    def train(self, mode: bool = True) -> Self:
        """Keep the mode of the network: an exported program has no other."""
        self.training = mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Embed a batch."""
        x = x[:, None] if self.channel else x
        if self.batches or len(x) == 1:
            return embeddings_of(self.net(x), len(x))
        return torch.cat([embeddings_of(self.net(x[i : i + 1]), 1) for i in range(len(x))])


def embeddings_of(out: object, items: int) -> Tensor:
    """Return the embeddings (B, D) of what a network returned.

    Networks that return several tensors have the embedding last; axes of size 1 are dropped.

    Raises:
        ModelCardError: If that is not one vector an item.
    """
    if isinstance(out, tuple | list) and out:
        out = out[-1]
    if not torch.is_tensor(out):
        raise ModelCardError(
            f"the model returns {type(out).__name__}, expected one tensor of embeddings"
        )
    if out.dim() < 2 or out.shape[0] != items or out[0].numel() != max(out.shape[1:]):
        raise ModelCardError(
            f"the model returns {tuple(out.shape)} for {items} items, expected (items, size of the "
            "embedding); export the network that ends in the embedding"
        )
    return out.flatten(1)


def probe(net: nn.Module, tried: Sequence[Tensor], what: str) -> Abilities:
    """Try a network on three items and find out what it can do.

    Args:
        net: Network of (B, …) items.
        tried: Three batches of one item: two of one length, one of another.
        what: Name of the model, for errors.

    Raises:
        ModelCardError: If it cannot embed one of the items, or gives embeddings of several sizes.
    """
    first, second, other = tried
    singles = []
    for item in tried:
        try:
            with torch.no_grad():
                singles.append(embeddings_of(net(item), 1))
        except FOREIGN_ERRORS as err:
            shape = tuple(item.shape)
            why = (
                f"cannot embed a batch of shape {shape}"
                if not singles
                else f"embeds a batch of shape {tuple(first.shape)} and not one of {shape}"
            )
            raise ModelCardError(
                f"{what} {why} ({_first_line(err)}); expected a network of any length: export it "
                "with dynamic axes"
            ) from err
    sizes = {single.shape[1] for single in singles}
    if len(sizes) != 1 or not all(bool(single.isfinite().all()) for single in singles):
        raise ModelCardError(
            f"{what} gives embeddings of sizes {sorted(sizes)}, expected finite ones of one size "
            "for every length; export the network that ends in the embedding"
        )
    return Abilities(
        sizes.pop(),
        batches=_batches(net, torch.cat([first, second]), torch.cat(singles[:2])),
        differentiable=_differentiable(net, other),
    )


def same(found: Tensor, expected: Tensor) -> bool:
    """Tell whether two results are equal but for rounding."""
    if found.shape != expected.shape:
        return False
    largest = float(expected.abs().max())
    return bool((found - expected).abs().max() <= AGREEMENT * max(largest, 1e-6))


def _batches(net: nn.Module, both: Tensor, singles: Tensor) -> bool:
    try:
        with torch.no_grad():
            together = embeddings_of(net(both), len(both))
    except (*FOREIGN_ERRORS, ModelCardError):
        return False
    return same(together, singles)


def _differentiable(net: nn.Module, item: Tensor) -> bool:
    item = item.clone().requires_grad_()
    try:
        with torch.enable_grad():
            out = embeddings_of(net(item), 1)
            if not out.requires_grad:
                return False
            (gradient,) = torch.autograd.grad(weighed(out), item, allow_unused=True)
    except FOREIGN_ERRORS:
        return False
    return gradient is not None and bool(gradient.abs().max() > 0)


def weighed(embeddings: Tensor) -> Tensor:
    """Return a weighted sum of (B, D) embeddings, whose gradient tells whether one exists.

    A squared norm would not do: that of an embedding of unit length is constant.
    """
    weights = torch.linspace(1, 2, embeddings.shape[-1], device=embeddings.device)
    return (embeddings * weights.to(embeddings.dtype)).sum()


def waveforms_to_try(sample_rate_hz: int) -> list[Tensor]:
    """Return three quiet noises: two of one second, one of one and a half."""
    generator = torch.Generator().manual_seed(0)
    sizes = (sample_rate_hz, sample_rate_hz, sample_rate_hz * 3 // 2 + 7)
    return [0.05 * torch.randn(1, size, generator=generator).clamp(-3, 3) for size in sizes]


def contained_waveforms(
    net: nn.Module, sample_rate_hz: int, what: str, *, channel: bool = False
) -> tuple[InstrumentedModel, Abilities]:
    """Wrap a network of waveforms after trying it."""
    tried = waveforms_to_try(sample_rate_hz)
    able = probe(net, [wav[:, None] if channel else wav for wav in tried], what)
    contained = Contained(net, batches=able.batches, channel=channel)
    return waveform_model(contained, sample_rate_hz=sample_rate_hz), able


def rate_of(spec: SourceSpec, text: str) -> int:
    """Return the sample rate that an option gives.

    Raises:
        ModelCardError: If it is none.
    """
    if not text.isascii() or not text.isdigit() or not 4000 <= int(text) <= 192000:
        raise ModelCardError(
            f"{spec} has rate={text}, expected the sample rate of the model in hertz, 4000 to "
            "192000"
        )
    return int(text)


def file_of(spec: SourceSpec) -> Path:
    """Return the file of a source, checked to have a name.

    Raises:
        ModelCardError: If the path is a directory.
    """
    path = Path(spec.location)
    if path.is_dir():
        raise ModelCardError(f"{spec} names a directory, expected a file; add its name")
    return path


class FeatureNetwork(nn.Module):
    """A network of Kaldi features (B, T, F) behind the mapping from levels: (B, F, T) → (B, D).

    Items of different lengths are embedded one by one, since how the network treats padding is
    unknown.

    Args:
        features: Mapping from the front end's levels to features.
        module: The network.
    """

    def __init__(self, features: KaldiFeatures, module: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.module = module
        self.output = nn.Identity()

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed a batch of levels in [0, 1]."""
        if lengths is not None and not bool((lengths == x.shape[2]).all()):
            rows = [self._embed(x[i : i + 1, :, : int(n)]) for i, n in enumerate(lengths)]
            embedding: Tensor = self.output(torch.cat(rows))
        else:
            embedding = self.output(self._embed(x))
        return embedding

    def _embed(self, x: Tensor) -> Tensor:
        embedding: Tensor = self.module(self.features(x).transpose(1, 2))
        return embedding


def feature_model(module: nn.Module, front_end: KaldiFbank) -> InstrumentedModel:
    """Wrap a network of Kaldi features (B, T, F) as an instrumented model."""
    return embedder(FeatureNetwork(KaldiFeatures(front_end.band_range), module), front_end)


def _first_line(err: BaseException) -> str:
    text = str(err).strip()
    return text.splitlines()[0][:200] if text else type(err).__name__
