"""Fit defences to a model on clean recordings or images; no labels are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from nip_audio.core.adapter import Batch
from nip_audio.errors import InputError
from nip_audio.models.modalities import modality_of
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purifiers.guided_training import GuidedSettings, Progress, train_guided
from nip_audio.purifiers.neuron_selecting import NeuronSelecting
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.purifiers.nip_pool import NipPool, PoolSettings
from nip_audio.purifiers.sparse_coding import StratifiedSparseCoding
from nip_audio.workflows.clean_data import Benign

__all__ = [
    "GUIDED_ON_IMAGES",
    "fit_guided",
    "fit_neurons",
    "fit_pool",
    "fit_sparse_coding",
    "guided_settings",
]

GUIDED_ON_IMAGES = GuidedSettings(raw_share=0.0, eps_input=(1 / 255, 12 / 255), input_weight=10.0)
"""Settings of a guided purifier of images. Raw input and model input are the same for images, so
that one level is attacked; the strengths suit colour images, grey digits need larger ones."""

_GUIDED = {"audio": GuidedSettings(), "image": GUIDED_ON_IMAGES}


def guided_settings(pretrained: PretrainedModel) -> GuidedSettings:
    """Return the default settings of a guided purifier for a model."""
    return _GUIDED[modality_of(pretrained.card).name]


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
    """Train a guided purifier on benign items.

    Args:
        pretrained: Model to defend.
        benign: Source of benign items like those expected in use; a purifier of recordings accepts
            any length, whatever the length of the crops.
        settings: Settings of the training.
        batch_size: Number of items per step.
        start: Purifier of the same model to continue from; None starts from an untrained network.
        checkpoint: File from which an interrupted training is resumed; None writes none.
        progress: Function called after each step.

    Raises:
        InputError: If ``batch_size`` is below 2.
        ResumeError: If the checkpoint belongs to another training.
    """
    if batch_size < 2:
        raise InputError(f"batch_size is {batch_size}, expected ≥ 2; 32 is usual")
    card = pretrained.card
    return train_guided(
        pretrained.model,
        lambda generator: benign.draw(generator, items=batch_size),
        settings,
        layers=card.default_taps,
        model_id=pretrained.model_id,
        channels=modality_of(card).channels(card),
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
    """Fit the pool of inverse perturbations of the published NIP (NIP, Algorithm 2).

    Args:
        pretrained: Model to defend.
        benign: Source of benign items like those expected in use; for recordings, a candidate is
            repeated or cut to the length of an input.
        settings: Settings of the pool.
        candidates: Number of items, each of which gives one candidate.
        layer: Name of the tapped layer; None is the last of the model's default taps.
        batch_size: Number of items processed at a time.
        seed: Seed of the draw of items.
        progress: Function called with the number of candidates done.

    Raises:
        InputError: If a number is out of range.
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
    """Select the neurons of each class of the model, for neuron selecting (NS).

    Args:
        pretrained: Model to defend.
        benign: Source of benign items of the model's own speakers or classes.
        share: Share of the neurons of a layer that a class selects.
        layers: Names of the layers; None uses the model's default taps.
        items: Number of items; a class that is never predicted selects all neurons.
        batch_size: Number of items processed at a time.
        seed: Seed of the draw of items.

    Raises:
        InputError: If a number is out of range, or the model predicts no classes.
        LayerNotFoundError: If a layer is not a module of the network.
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
    """Learn the dictionary of the baseline STL (stratified sparse coding).

    Args:
        pretrained: Model whose input is rebuilt.
        benign: Source of benign items like those expected in use.
        items: Number of items from which patches are drawn.
        batch_size: Number of items processed at a time.
        seed: Seed of the draw of items and patches, and of the learning.

    Raises:
        InputError: If a number is out of range, or nearly all patches are flat.
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
    """Draw items, and yield them in batches of model input."""
    if batch_size < 1 or count < 1:
        raise InputError(
            f"batch_size is {batch_size} and the number of items {count}, expected at least 1 each"
        )
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, count, batch_size):
        items = min(batch_size, count - start)
        with torch.no_grad():
            yield pretrained.model.to_input(benign.draw(generator, items=items))
