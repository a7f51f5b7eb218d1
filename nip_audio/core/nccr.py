"""NCCR: how much neuron outputs change, relative to themselves, under random noise.

Source: "Neuron Coverage Change Rate" (Shi), Sec. 3.2 and 4: F(x) are the outputs of chosen neurons,
x' = x + ε with random ε, and NCCR is the relative change of F(x') against F(x). The scalar is an l2
norm; the vector has one entry for each noise and layer, averaged over draws.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.influence import neuron_outputs
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError

__all__ = [
    "NccrConfig",
    "NccrResult",
    "Noise",
    "NoiseFamily",
    "apply_noise",
    "change_rate",
    "draw_noise",
    "measure_nccr",
    "nccr_scalar",
    "nccr_vector",
]

NoiseFamily = Literal["gaussian", "uniform", "mask"]
NoiseLevel = Literal["raw", "input"]


@dataclass(frozen=True)
class Noise:
    """One kind of random perturbation.

    Attributes:
        family: ``gaussian`` (scale = standard deviation), ``uniform`` (scale = largest magnitude)
            or ``mask`` (scale = share of patches set to the lower bound).
        level: ``raw`` disturbs raw input (a waveform), ``input`` the model's own (a spectrogram).
        scale: In units of that level; a share in (0, 1) for ``mask``.
        patch: Side of a mask's square patches, in positions.

    Raises:
        InputError: If a value makes no sense.
    """

    family: NoiseFamily
    level: NoiseLevel
    scale: float
    patch: int = 4

    def __post_init__(self) -> None:
        """Check."""
        if self.family not in get_args(NoiseFamily) or self.level not in get_args(NoiseLevel):
            raise InputError(
                f"noise is {self.family!r} at level {self.level!r}, expected one of "
                f"{get_args(NoiseFamily)} at one of {get_args(NoiseLevel)}"
            )
        if not self.scale > 0 or (self.family == "mask" and self.scale >= 1) or self.patch < 1:
            raise InputError(
                f"{self.family} noise has scale {self.scale} and patch {self.patch}, expected "
                "scale > 0 (below 1 for a mask) and patch ≥ 1"
            )
        if self.family == "mask" and self.level == "raw":
            raise InputError("masks are for level 'input'; use gaussian or uniform noise at 'raw'")

    @property
    def name(self) -> str:
        """Short name, e.g. ``gaussian@input 0.03``."""
        return f"{self.family}@{self.level} {self.scale:g}"


@dataclass(frozen=True)
class NccrConfig:
    """What an NCCR vector is made of: every noise × every layer, averaged over the draws.

    Raises:
        InputError: If a part is empty.
    """

    layers: tuple[str, ...]
    noises: tuple[Noise, ...]
    draws: int = 4

    def __post_init__(self) -> None:
        """Check."""
        if not self.layers or not self.noises or self.draws < 1:
            raise InputError("NCCR needs at least one layer, one noise and one draw")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the vector's entries."""
        return tuple(f"{n.name} | {layer}" for n in self.noises for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "layers": list(self.layers),
            "noises": [asdict(n) for n in self.noises],
            "draws": self.draws,
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> NccrConfig:
        """Read what ``to_json`` wrote."""
        return NccrConfig(
            layers=tuple(data["layers"]),
            noises=tuple(Noise(**n) for n in data["noises"]),
            draws=int(data["draws"]),
        )


@dataclass(frozen=True)
class NccrResult:
    """Change rates of one item.

    Attributes:
        changes: (noises, draws, layers) relative l2 changes.
        embedding: (D,) embedding of the undisturbed item.
        draw_embeddings: (noises, draws, D) embeddings of the disturbed ones.
    """

    changes: Tensor
    embedding: Tensor
    draw_embeddings: Tensor

    @property
    def vector(self) -> Tensor:
        """(noises · layers,) averages over the draws, ordered as ``NccrConfig.names``."""
        return self.changes.mean(dim=1).flatten()


def draw_noise(noise: Noise, shape: tuple[int, ...], *, generator: torch.Generator) -> Tensor:
    """Draw, without applying.

    Args:
        noise: What to draw.
        shape: (draws, *S); a mask needs at least one axis in S.
        generator: Source of randomness, on the CPU so that every device gets the same noise.

    Returns:
        ``shape``: standard normal, uniform in [-1, 1], or bool that is true where masked.
    """
    if noise.family == "gaussian":
        return torch.randn(shape, generator=generator)
    if noise.family == "uniform":
        return torch.rand(shape, generator=generator) * 2 - 1
    # whole patches on a grid whose origin is random, along the last two axes (one for 1-D items)
    axes = range(max(1, len(shape) - 2), len(shape))
    coarse = list(shape)
    for axis in axes:
        coarse[axis] = -(-shape[axis] // noise.patch) + 1
    mask = torch.rand(coarse, generator=generator) < noise.scale
    for axis in axes:
        offset = int(torch.randint(noise.patch, (1,), generator=generator))
        mask = mask.repeat_interleave(noise.patch, dim=axis).narrow(axis, offset, shape[axis])
    return mask


def apply_noise(noise: Noise, x: Tensor, drawn: Tensor, bounds: Bounds) -> Tensor:
    """Disturb one item by each draw; the result keeps to the bounds.

    Args:
        noise: What was drawn.
        x: (1, *S) item.
        drawn: (draws, *S) from ``draw_noise``.
        bounds: Of the noise's level; a mask sets to the lower one.

    Returns:
        (draws, *S).

    Raises:
        InputError: If a mask has no lower bound to set to.
    """
    drawn = drawn.to(x.device)
    if noise.family == "mask":
        if not math.isfinite(bounds.low):
            raise InputError(
                f"the lower bound is {bounds.low}, a mask needs a finite one; give the model "
                "input_bounds, or use gaussian or uniform noise"
            )
        return torch.where(drawn, torch.as_tensor(bounds.low, dtype=x.dtype, device=x.device), x)
    return bounds.clip(x + noise.scale * drawn.to(x.dtype))


def change_rate(clean: Tensor, disturbed: Tensor, *, order: Literal[2, 0] = 2) -> Tensor:
    """Relative change ‖F(x') − F(x)‖ / ‖F(x)‖ (NCCR, Sec. 3.2).

    Args:
        clean: (N,) neuron outputs of x.
        disturbed: (..., N) neuron outputs of x'.
        order: 2 for the l2 norm; 0 for the share of neurons whose sign changes (on or off).

    Returns:
        (...).
    """
    if order == 0:
        return ((disturbed > 0) != (clean > 0)).to(clean.dtype).mean(dim=-1)
    floor = torch.finfo(clean.dtype).tiny
    change: Tensor = (disturbed - clean).norm(dim=-1)
    rate: Tensor = change / clean.norm().clamp_min(floor)
    return rate


def measure_nccr(
    model: InstrumentedModel,
    item: Batch,
    config: NccrConfig,
    *,
    generator: torch.Generator,
    chunk_positions: int = 40_000,
) -> NccrResult:
    """Measure the change rates of one item.

    The item's draws form the batch, so no padding is involved and the result does not depend on
    what else is measured. Memory is bounded by ``chunk_positions``.

    Args:
        model: In evaluation mode.
        item: Batch of one raw item, without padding (``Batch.item``).
        config: What to measure.
        generator: Source of the noise; equal generators give equal results.
        chunk_positions: Most positions (draws × frames) in one forward pass.

    Returns:
        The changes, detached.

    Raises:
        InputError: If the batch does not hold exactly one unpadded item.
        LayerNotFoundError: With near matches.
    """
    with torch.no_grad():
        return _measure(model, item, config, generator, chunk_positions)


def nccr_vector(
    model: InstrumentedModel, item: Batch, config: NccrConfig, *, generator: torch.Generator
) -> Tensor:
    """NCCR vector of one item, (noises · layers,), with its graph.

    For who attacks the detector: equal to ``measure_nccr(...).vector``, but a gradient flows to
    ``item.x``. All draws stay in memory.

    Raises:
        InputError: If the batch does not hold exactly one unpadded item.
    """
    return _measure(model, item, config, generator, chunk_positions=2**62).vector


def _measure(
    model: InstrumentedModel,
    item: Batch,
    config: NccrConfig,
    generator: torch.Generator,
    chunk_positions: int,
) -> NccrResult:
    if len(item) != 1 or item.lengths is not None:
        raise InputError(f"got {len(item)} items, expected one without padding; use Batch.item(i)")
    changes, embeddings = [], []
    with model.tap(*config.layers) as tap:
        clean_input = model.to_input(item)
        clean_embedding = model.embed_input(clean_input)
        clean = {layer: neuron_outputs(tap[layer])[0] for layer in config.layers}
        for noise in config.noises:
            source = item if noise.level == "raw" else clean_input
            bounds = model.bounds if noise.level == "raw" else model.input_bounds
            drawn = draw_noise(noise, (config.draws, *source.x.shape[1:]), generator=generator)
            rates, vectors = [], []
            for part in torch.split(drawn, max(1, chunk_positions // clean_input.x.shape[-1])):
                disturbed = Batch(apply_noise(noise, source.x, part, bounds))
                if noise.level == "raw":
                    disturbed = model.to_input(disturbed)
                vectors.append(model.embed_input(disturbed))
                rates.append(
                    torch.stack(
                        [
                            change_rate(clean[layer], neuron_outputs(tap[layer]))
                            for layer in config.layers
                        ],
                        dim=1,
                    )
                )
            changes.append(torch.cat(rates))
            embeddings.append(torch.cat(vectors))
    return NccrResult(torch.stack(changes), clean_embedding[0], torch.stack(embeddings))


def nccr_scalar(
    model: InstrumentedModel,
    item: Batch,
    *,
    layer: str,
    noise: Noise,
    draws: int = 10,
    generator: torch.Generator,
) -> float:
    """The scalar NCCR (NCCR, Sec. 4): mean relative l2 change at one layer under one noise."""
    config = NccrConfig(layers=(layer,), noises=(noise,), draws=draws)
    return float(measure_nccr(model, item, config, generator=generator).changes.mean())
