"""Measure how a purifier responds to an input: the inverse perturbation as evidence of an attack.

A guided purifier was taught to undo attacks. It leaves clean input, and input with harmless noise,
where it is; from an attacked input it moves the embedding far, back to where it was. So what the
purifier does tells an attack from noise, which the change of neurons under noise alone does not.
This joins NIP (neuron-level inverse perturbation: the purifier) and NCCR (neuron coverage change
rate: the change under noise); the combination is ours and of neither paper.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nip_audio.core.adapter import Batch
from nip_audio.core.influence import neuron_outputs
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.nccr import NccrConfig
from nip_audio.core.noise import apply_noise, draw_noise
from nip_audio.errors import InputError
from nip_audio.purifiers.base import Purifier

__all__ = ["measure_response", "response_names", "response_with_graph"]

_BANDS = 4
_LOW = 0.05  # quantile of levels that stands for the noise floor


@torch.no_grad()
def measure_response(
    model: InstrumentedModel,
    purifier: Purifier,
    batch: Batch,
    config: NccrConfig,
    *,
    generator: torch.Generator,
) -> NDArray[np.float64]:
    """Measure how a purifier of model input responds to each item and to noisy copies of it.

    With K noises the model embeds 2 K + 2 inputs for each item: the item and its copies, each as it
    is and purified. All of them are one batch.

    Args:
        model: Model in evaluation mode. If it has a head, the margins of its prediction are
            measured too.
        purifier: Purifier of the model's input, such as ``GuidedNip``.
        batch: (B, *S) raw items without padding.
        config: Noises of the copies, one draw each, and layers whose neurons are compared.
        generator: Random generator of the noise; equal generators give equal results, however the
            items are divided into batches, unless the purifier draws noise of its own.

    Returns:
        (B, F) finite numbers, named by ``response_names``.

    Raises:
        InputError: If the purifier works on raw input, or the batch is padded.
        LayerNotFoundError: If a layer does not exist.
    """
    rows = response_with_graph(model, purifier, batch, config, generator=generator)
    return np.asarray(rows.double().cpu().numpy())


def response_with_graph(
    model: InstrumentedModel,
    purifier: Purifier,
    batch: Batch,
    config: NccrConfig,
    *,
    generator: torch.Generator,
) -> Tensor:
    """Measure as ``measure_response`` does, in the autograd graph, as an attack on it needs.

    Returns:
        (B, F) numbers in the type of the model.

    Raises:
        InputError: If the purifier works on raw input, or the batch is padded.
        LayerNotFoundError: If a layer does not exist.
    """
    if purifier.level != "input" or batch.lengths is not None:
        raise InputError(
            f"{purifier.name} works on {purifier.level} and the batch "
            f"{'is' if batch.lengths is not None else 'is not'} padded, expected a purifier of the "
            "model's input and items of one length; measure items one by one"
        )
    copies = 1 + len(config.noises)
    with model.tap(*config.layers) as tap:
        x = _with_noisy_copies(model, batch, config, generator)
        before = model.embed_input(x)
        neurons = [neuron_outputs(tap[layer]) for layer in config.layers]
        purified = purifier.purify(x, generator=generator)
        after = model.embed_input(purified)
        restored = [neuron_outputs(tap[layer]) for layer in config.layers]

    def split(rows: Tensor) -> Tensor:
        return rows.reshape(copies, len(batch), *rows.shape[1:])

    e, q = split(before), split(after)
    change = split((purified.x - x.x).flatten(1))
    columns = [_distance(e[k], q[k]) for k in range(copies)]
    columns += [c.abs().mean(dim=1) for c in change]
    columns += [c.std(dim=1) for c in change]
    for k in range(1, copies):
        columns += [_distance(a[0], b[k]) for a in (e, q) for b in (e, q)]
    for clean, purged in zip(map(split, neurons), map(split, restored), strict=True):
        columns += [_rate(clean[0], clean[k]) for k in range(1, copies)]
        columns += [_rate(clean[k], purged[k]) for k in range(copies)]
    if model.head is not None:
        columns += _margins(model, e, q)
    columns += list(_levels(_levels_of(model, x.x[: len(batch)])))
    return torch.stack(columns, dim=1)


def response_names(config: NccrConfig, *, head: bool) -> tuple[str, ...]:
    """Return the names of the numbers of ``measure_response``, in order."""
    noises = [noise.name for noise in config.noises]
    copies = ["the item", *(f"its copy with {name}" for name in noises)]
    names = [f"distance to the purified embedding, {copy}" for copy in copies]
    names += [f"mean change by the purifier, {copy}" for copy in copies]
    names += [f"spread of the change by the purifier, {copy}" for copy in copies]
    states = ("as it is", "purified")
    for copy in copies[1:]:
        names += [f"distance, the item {a} and {copy} {b}" for a in states for b in states]
    for layer in config.layers:
        names += [f"change of {layer} under {name}" for name in noises]
        names += [f"change of {layer} by the purifier, {copy}" for copy in copies]
    if head:
        names += [f"margin, {copy} {state}" for state in states for copy in copies]
    names += ["mean level", "spread of levels", "floor of levels", "highest level"]
    for band in range(1, _BANDS + 1):
        names += [f"mean level of quarter {band}", f"floor of quarter {band}"]
    return tuple(names)


def _with_noisy_copies(
    model: InstrumentedModel, batch: Batch, config: NccrConfig, generator: torch.Generator
) -> Batch:
    """Return model input ((1 + K) B, *S): all items, then all of them under each noise."""
    # item by item, so that the draws do not depend on how items are divided into batches
    draws = [
        [draw_noise(n, (1, *batch.x.shape[1:]), generator=generator) for n in config.noises]
        for _ in range(len(batch))
    ]
    if all(noise.level == "raw" for noise in config.noises):
        # one pass of the front end for all
        noisy = _noisy(batch.x, config, draws, model)
        return model.to_input(Batch(torch.cat([batch.x, *noisy])))
    x = model.to_input(batch)
    return Batch(torch.cat([x.x, *_noisy(x.x, config, draws, model)]))


def _noisy(
    x: Tensor, config: NccrConfig, draws: list[list[Tensor]], model: InstrumentedModel
) -> Iterator[Tensor]:
    for k, noise in enumerate(config.noises):
        bounds = model.bounds if noise.level == "raw" else model.input_bounds
        yield torch.cat(
            [apply_noise(noise, x[i : i + 1], drawn[k], bounds) for i, drawn in enumerate(draws)]
        )


def _margins(model: InstrumentedModel, e: Tensor, q: Tensor) -> list[Tensor]:
    """Return the margin of the item's predicted class, as it is and purified, for every copy."""
    rows = torch.cat([e, q])  # (2 (K + 1), B, D)
    scores = model.logits(model.score_embeddings(rows.flatten(0, 1))).reshape(*rows.shape[:2], -1)
    named = scores[0].argmax(dim=1)[None, :, None].expand(len(rows), -1, 1)
    others = scores.scatter(2, named, -torch.inf).amax(dim=2)
    return list(scores.gather(2, named)[..., 0] - others)


def _levels_of(model: InstrumentedModel, x: Tensor) -> Tensor:
    """Return the levels (B, F, T) of model input; for spectra the front end computes them."""
    levels = getattr(model.front_end, "levels", None)
    if levels is not None:
        x = torch.stack([levels(one) for one in x])
    return x if x.dim() == 3 else x.mean(dim=1)


def _levels(levels: Tensor) -> Iterator[Tensor]:
    """Return numbers of the levels (B, F, T) of all bands, and of each quarter of them."""
    every = levels.flatten(1)
    yield from (every.mean(dim=1), every.std(dim=1), every.quantile(_LOW, dim=1), every.amax(dim=1))
    for band in torch.tensor_split(levels, _BANDS, dim=1):
        yield from (band.flatten(1).mean(dim=1), band.flatten(1).quantile(_LOW, dim=1))


def _rate(a: Tensor, b: Tensor) -> Tensor:
    rate: Tensor = (b - a).norm(dim=1) / a.norm(dim=1).clamp_min(1e-12)
    return rate


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return 1 - torch.cosine_similarity(a, b, dim=1)
