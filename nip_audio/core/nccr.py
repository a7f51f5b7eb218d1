"""Measure the neuron coverage change rate (NCCR): how much random noise changes neuron outputs.

Source: "Neuron Coverage Change Rate" (Shi), Sec. 3.2 and 4. F(x) are the outputs of chosen neurons,
x' = x + ε with random ε, and NCCR is the change of F(x') relative to F(x). The scalar is an l2
norm; the vector has one entry per noise and layer, averaged over draws. Sec. 5 names an l0 distance
besides, and Sec. 1 the difference of the neuron coverage of x and x': ``coverage_change`` is both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch
from nip_audio.core.influence import neuron_outputs
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.noise import Noise, apply_noise, draw_noise
from nip_audio.errors import InputError

__all__ = [
    "NccrConfig",
    "NccrResult",
    "change_rate",
    "coverage_change",
    "disturbed_inputs",
    "measure_nccr",
    "nccr_scalar",
    "nccr_with_graph",
]


_MOST_DRAWS = 1000  # of each noise, as a file or a user may ask


@dataclass(frozen=True)
class NccrConfig:
    """Settings of an NCCR vector: every noise × every layer, averaged over the draws.

    Attributes:
        layers: Names of the tapped layers.
        noises: Random perturbations.
        draws: Draws per noise.

    Raises:
        InputError: If there is no layer, noise or draw.
    """

    layers: tuple[str, ...]
    noises: tuple[Noise, ...]
    draws: int = 4

    def __post_init__(self) -> None:
        """Check the settings."""
        if not self.layers or not self.noises or not 1 <= self.draws <= _MOST_DRAWS:
            raise InputError(
                f"got {len(self.layers)} layers, {len(self.noises)} noises and {self.draws} draws, "
                f"NCCR needs at least one of each, and at most {_MOST_DRAWS} draws"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the vector's entries, in order."""
        return tuple(f"{n.name} | {layer}" for n in self.noises for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return {
            "layers": list(self.layers),
            "noises": [asdict(n) for n in self.noises],
            "draws": self.draws,
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> NccrConfig:
        """Return the settings that ``to_json`` wrote.

        Raises:
            InputError: If an earlier version wrote them, and they stop drawing at a tolerance.
        """
        if data.get("tolerance") is not None:
            raise InputError(
                f"draws stop at a tolerance of {data['tolerance']}, expected settings that make "
                "all draws; calibrate again"
            )
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
        flips: (noises, draws, layers) shares of neurons that begin or cease to be active.
        embedding: (D,) embedding of the clean item.
        draw_embeddings: (noises, draws, D) embeddings of the noisy items.
        model_input: (*S) the clean item as model input.
    """

    changes: Tensor
    flips: Tensor
    embedding: Tensor
    draw_embeddings: Tensor
    model_input: Tensor

    @property
    def vector(self) -> Tensor:
        """NCCR vector (noises · layers,): mean changes, in the order of ``NccrConfig.names``."""
        return self.changes.mean(dim=1).flatten()


def change_rate(clean: Tensor, disturbed: Tensor) -> Tensor:
    """Return the relative change ‖F(x') − F(x)‖ / ‖F(x)‖ (NCCR, Sec. 3.2).

    Args:
        clean: (N,) neuron outputs of x.
        disturbed: (..., N) neuron outputs of x'.

    Returns:
        (...) change rates, at least 0.
    """
    floor = torch.finfo(clean.dtype).tiny
    change: Tensor = (disturbed - clean).norm(dim=-1)
    rate: Tensor = change / clean.norm().clamp_min(floor)
    return rate


def coverage_change(clean: Tensor, disturbed: Tensor, *, threshold: float = 0.25) -> Tensor:
    """Return the share of neurons that begin or cease to be active (l0; NCCR, Sec. 1 and 5).

    A neuron is active if its output, scaled to [0, 1] over the neurons of one layer and item, is
    above the threshold, as in the neuron coverage of Pei et al. Deviation: the paper names an l0
    distance without saying what counts as a change; without a threshold every output changes.

    Args:
        clean: (N,) neuron outputs of x.
        disturbed: (..., N) neuron outputs of x'.
        threshold: Threshold of the scaled outputs, in [0, 1).

    Returns:
        (...) shares, in [0, 1].
    """
    changed = _active(disturbed, threshold) != _active(clean, threshold)
    share: Tensor = changed.to(clean.dtype).mean(dim=-1)
    return share


def _active(outputs: Tensor, threshold: float) -> Tensor:
    low, high = outputs.amin(dim=-1, keepdim=True), outputs.amax(dim=-1, keepdim=True)
    return outputs - low > threshold * (high - low)


def measure_nccr(
    model: InstrumentedModel,
    item: Batch,
    config: NccrConfig,
    *,
    generator: torch.Generator,
    chunk_positions: int = 40_000,
) -> NccrResult:
    """Measure the change rates of one item.

    The draws of all noises form the batch, so there is no padding and the result does not depend
    on which other items are measured. Memory is bounded by ``chunk_positions``.

    Args:
        model: Model in evaluation mode.
        item: Batch of one raw item, without padding (``Batch.item``).
        config: Layers, noises and draws to measure.
        generator: Random generator of the noise; equal generators give equal results.
        chunk_positions: Largest number of positions (draws × frames) in one forward pass.

    Returns:
        The change rates, detached.

    Raises:
        InputError: If the batch does not hold exactly one unpadded item.
        LayerNotFoundError: If a layer does not exist; the message suggests similar names.
    """
    with torch.no_grad():
        return _measure(model, item, config, generator, chunk_positions)


def nccr_with_graph(
    model: InstrumentedModel, item: Batch, config: NccrConfig, *, generator: torch.Generator
) -> NccrResult:
    """Measure NCCR inside the autograd graph, as an attack on the detector needs it.

    Works as ``measure_nccr``, but gradients flow to ``item.x``, and all draws stay in memory.

    Raises:
        InputError: If the batch does not hold exactly one unpadded item.
    """
    return _measure(model, item, config, generator, 2**62)


def _measure(
    model: InstrumentedModel,
    item: Batch,
    config: NccrConfig,
    generator: torch.Generator,
    chunk_positions: int,
) -> NccrResult:
    if len(item) != 1 or item.lengths is not None:
        raise InputError(
            f"got a batch of {len(item)}, expected one item without padding; use Batch.item(i)"
        )
    changes: list[Tensor] = []
    flips: list[Tensor] = []
    embeddings: list[Tensor] = []
    noises, draws = config.noises, config.draws
    with model.tap(*config.layers) as tap:
        clean_input = model.to_input(item)
        clean_embedding = model.embed_input(clean_input)
        clean = {layer: neuron_outputs(tap[layer])[0] for layer in config.layers}
        most = max(1, chunk_positions // clean_input.x.shape[-1])
        disturbed = disturbed_inputs(model, item, clean_input, noises, draws, generator, most)
        for part in _packed(disturbed, most):
            embeddings.append(model.embed_input(Batch(part)))
            noisy = {layer: neuron_outputs(tap[layer]) for layer in config.layers}
            for measured, rate in ((changes, change_rate), (flips, coverage_change)):
                rates = [rate(clean[layer], noisy[layer]) for layer in config.layers]
                measured.append(torch.stack(rates, dim=1))
    changed, flipped, embedded = (
        torch.cat(rows).reshape(len(noises), draws, -1) for rows in (changes, flips, embeddings)
    )
    return NccrResult(changed, flipped, clean_embedding[0], embedded, clean_input.x[0])


def disturbed_inputs(
    model: InstrumentedModel,
    item: Batch,
    clean_input: Batch,
    noises: Sequence[Noise],
    draws: int,
    generator: torch.Generator,
    most: int = 2**62,
) -> Iterator[Tensor]:
    """Yield noisy versions of one item, noise by noise and draw by draw.

    Args:
        model: Model whose front end is applied to raw input.
        item: Batch of one raw item.
        clean_input: Model input of the same item.
        noises: Noises on raw input or on model input.
        draws: Draws per noise.
        generator: Random generator of the noise.
        most: Largest number of draws to yield at once.

    Yields:
        (≤ most, *S) model input with draws of one noise.
    """
    for noise in noises:
        source = item if noise.level == "raw" else clean_input
        bounds = model.bounds if noise.level == "raw" else model.input_bounds
        drawn = draw_noise(noise, (draws, *source.x.shape[1:]), generator=generator)
        for part in torch.split(drawn, most):
            disturbed = Batch(apply_noise(noise, source.x, part, bounds))
            yield (model.to_input(disturbed) if noise.level == "raw" else disturbed).x


def _packed(parts: Iterator[Tensor], most: int) -> Iterator[Tensor]:
    """Join consecutive parts into batches of at most ``most``: a few large forward passes."""
    waiting: list[Tensor] = []
    for part in parts:
        if waiting and sum(map(len, waiting)) + len(part) > most:
            yield torch.cat(waiting)
            waiting = []
        waiting.append(part)
    yield torch.cat(waiting)


def nccr_scalar(
    model: InstrumentedModel,
    item: Batch,
    *,
    layer: str,
    noise: Noise,
    draws: int = 10,
    norm: Literal["l2", "l0"] = "l2",
    generator: torch.Generator,
) -> float:
    """Measure the scalar NCCR: the mean relative change of one layer (NCCR, Sec. 4 and 5).

    Args:
        model: Model in evaluation mode.
        item: Batch of one raw item, without padding (``Batch.item``).
        layer: Name of the tapped layer.
        noise: Random perturbation.
        draws: Number of draws to average over.
        norm: ``l2`` for ``change_rate``, ``l0`` for ``coverage_change``.
        generator: Random generator of the noise; equal generators give equal results.

    Raises:
        InputError: If the batch does not hold exactly one unpadded item, or ``draws`` is below 1.
        LayerNotFoundError: If the layer does not exist; the message suggests similar names.
    """
    config = NccrConfig(layers=(layer,), noises=(noise,), draws=draws)
    result = measure_nccr(model, item, config, generator=generator)
    return float((result.changes if norm == "l2" else result.flips).mean())
