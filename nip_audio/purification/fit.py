"""Fit defences to a model on clean recordings or pictures of one's own; no labels are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from nip_audio.core.adapter import Batch
from nip_audio.errors import InputError
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purification.benign import Benign
from nip_audio.purifiers.guided_training import GuidedSettings, Progress, train_guided
from nip_audio.purifiers.neuron_selecting import NeuronSelecting
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.purifiers.nip_pool import NipPool, PoolSettings
from nip_audio.purifiers.sparse_coding import StratifiedSparseCoding

__all__ = ["GUIDED_ON_PICTURES", "fit_guided", "fit_neurons", "fit_pool", "fit_sparse_coding"]

GUIDED_ON_PICTURES = GuidedSettings(raw_share=0.0, eps_input=(1 / 255, 12 / 255), input_weight=10.0)
"""Of pictures the raw input is the model's own, which leaves one level to attack; the strengths are
for colours, grey digits take more."""


def fit_guided(
    pretrained: PretrainedModel,
    benign: Benign,
    settings: GuidedSettings,
    *,
    batch_size: int = 32,
    start: GuidedNip | None = None,
    checkpoint: Path | None = None,
    progress: Progress = lambda step, loss, kept: None,
) -> GuidedNip:
    """Train a guided purifier.

    Args:
        pretrained: What it is to defend.
        benign: Like what is to come; a purifier of sound takes any length, whatever the crops'.
        settings: Of the training.
        batch_size: Items a step.
        start: Purifier of the same model to go on from.
        checkpoint: File by which an interrupted training goes on.
        progress: Called after each step.

    Raises:
        InputError: If a batch would hold fewer than two items.
        ResumeError: If the checkpoint is of another training.
    """
    if batch_size < 2:
        raise InputError(f"batch_size is {batch_size}, expected ≥ 2")
    card = pretrained.card
    return train_guided(
        pretrained.model,
        lambda generator: benign.draw(generator, items=batch_size),
        settings,
        layers=card.default_taps,
        model_id=pretrained.model_id,
        channels=card.image_shape[0] if card.modality == "image" else 1,
        seen=benign.contents,
        start=start,
        checkpoint=checkpoint,
        progress=progress,
    )


def fit_pool(
    pretrained: PretrainedModel,
    benign: Benign,
    settings: PoolSettings,
    *,
    candidates: int = 256,
    layer: str | None = None,
    batch_size: int = 32,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> NipPool:
    """Fit the published NIP's pool of inverse perturbations.

    Args:
        pretrained: What it is to defend.
        benign: Like what is to come; of sound a candidate is repeated or cut to the length of an
            input.
        settings: Of the method.
        candidates: Items, each of which gives one candidate.
        layer: Whose neurons are looked at; None is the last of the model's default taps.
        batch_size: Items at a time.
        seed: Of what is drawn.
        progress: Called with the number of candidates made.

    Raises:
        InputError: If a number makes no sense.
    """
    return NipPool.fit(
        pretrained.model,
        _inputs(pretrained, benign, candidates, batch_size=batch_size, seed=seed),
        layer=layer or pretrained.card.default_taps[-1],
        model_id=pretrained.model_id,
        settings=settings,
        seen=benign.contents,
        progress=progress,
    )


def fit_neurons(
    pretrained: PretrainedModel,
    benign: Benign,
    *,
    share: float = 0.9,
    layers: Sequence[str] | None = None,
    items: int = 2048,
    batch_size: int = 32,
    seed: int = 0,
) -> NeuronSelecting:
    """Select the neurons of each of the model's own classes.

    Args:
        pretrained: What it is to defend.
        benign: Of the model's own speakers or kinds of pictures.
        share: Of the neurons of a layer that a class selects.
        layers: Whose neurons; None is the model's default taps.
        items: How many; a class that none of them is named as selects all neurons.
        batch_size: Items at a time.
        seed: Of what is drawn.

    Raises:
        InputError: If a number makes no sense, or the model names no classes.
        LayerNotFoundError: If a layer is no module of the network.
    """
    return NeuronSelecting.fit(
        pretrained.model,
        _inputs(pretrained, benign, items, batch_size=batch_size, seed=seed),
        layers=pretrained.card.default_taps if layers is None else layers,
        share=share,
        seen=benign.contents,
    )


def fit_sparse_coding(
    pretrained: PretrainedModel,
    benign: Benign,
    *,
    items: int = 256,
    batch_size: int = 32,
    seed: int = 0,
) -> StratifiedSparseCoding:
    """Learn the dictionary of the baseline STL.

    Args:
        pretrained: Whose input is to be rebuilt.
        benign: Like what is to come.
        items: Whose patches are learned from.
        batch_size: Items at a time.
        seed: Of what is drawn and learned.

    Raises:
        InputError: If a number makes no sense, or nearly everything is flat.
    """
    return StratifiedSparseCoding.fit(
        _inputs(pretrained, benign, items, batch_size=batch_size, seed=seed),
        bounds=pretrained.model.input_bounds,
        generator=torch.Generator().manual_seed(seed),
        seen=benign.contents,
    )


def _inputs(
    pretrained: PretrainedModel, benign: Benign, count: int, *, batch_size: int, seed: int
) -> Iterator[Batch]:
    """Draw items, as model input."""
    if batch_size < 1 or count < 1:
        raise InputError(
            f"batch_size is {batch_size} and the number of items {count}, expected at least 1 each"
        )
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, count, batch_size):
        items = min(batch_size, count - start)
        with torch.no_grad():
            yield pretrained.model.to_input(benign.draw(generator, items=items))
