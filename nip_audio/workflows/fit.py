"""Fit defences to a model on clean recordings or images; no labels are needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nip_audio.audio.manifest import Recording
from nip_audio.core.adapter import Batch
from nip_audio.core.modality import Reader
from nip_audio.core.state import require_new
from nip_audio.errors import FileError, InputError
from nip_audio.models.modalities import modality_of
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purifiers.class_neurons import ClassNeurons
from nip_audio.purifiers.guided_training import GuidedSettings, Progress, train_guided
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.purifiers.nip_pool import NipPool, PoolSettings
from nip_audio.purifiers.patch_dictionary import PatchDictionary
from nip_audio.workflows.clean_data import Benign, read_benign
from nip_audio.workflows.fit_settings import (
    FIT_SETTINGS,
    ClassNeuronsFit,
    FitSettings,
    GuidedFit,
    PatchDictionaryFit,
    PoolFit,
)

__all__ = [
    "GUIDED_ON_IMAGES",
    "FitProgress",
    "FittedPurifier",
    "fit_guided",
    "fit_neurons",
    "fit_pool",
    "fit_purifier",
    "fit_patch_dictionary",
    "guided_settings",
]

GUIDED_ON_IMAGES = GuidedSettings(raw_share=0.0, eps_input=(1 / 255, 12 / 255), input_weight=10.0)
"""Settings of a guided purifier of images. Raw input and model input are the same for images, so
that one level is attacked; the strengths suit colour images, grey digits need larger ones."""

_GUIDED = {"audio": GuidedSettings(), "image": GUIDED_ON_IMAGES}

FitProgress = Callable[[int, int, float | None], None]
"""Function called with the number of parts done, the number of all parts, and the share of items
that keep their prediction behind the purifier (None for methods other than guided)."""

_LAST = 20  # final steps over which the share of kept predictions is averaged
_FEW_KEPT = 0.5


@dataclass(frozen=True)
class FittedPurifier:
    """A purifier that was fitted and written.

    Attributes:
        out: Path of the purifier.
        method: Name of the method, one of ``FIT_SETTINGS``.
        files: Number of files it was fitted to.
        failures: Errors of the files that could not be read.
        kept: Share of the last training examples on which the model keeps its prediction behind the
            purifier; None for methods other than guided, or if no step was left to train.
        model_id: Identity of the model.
    """

    out: Path
    method: str
    files: int
    failures: tuple[FileError, ...]
    kept: float | None
    model_id: str

    @property
    def defends(self) -> bool | None:
        """Whether the model keeps at least half of its predictions; None where not measured."""
        return None if self.kept is None else self.kept >= _FEW_KEPT

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "out": str(self.out),
            "method": self.method,
            "files": self.files,
            "failed": [str(failure) for failure in self.failures],
            "kept": self.kept,
            "model_id": self.model_id,
        }


def fit_purifier(
    pretrained: PretrainedModel,
    files: Iterable[Recording],
    reader: Reader,
    settings: FitSettings,
    out: Path,
    *,
    start: Path | None = None,
    seed: int = 0,
    force: bool = False,
    progress: FitProgress = lambda done, total, kept: None,
) -> FittedPurifier:
    """Fit a purifier to clean files, and write it.

    The class of the settings chooses the method. A guided training that is interrupted leaves
    ``<out>.partial``, from which the next call with the same arguments resumes it.

    Args:
        pretrained: Model to defend.
        files: Clean files like those expected in use.
        reader: Reader of the files.
        settings: Settings of the method.
        out: Path of the purifier to write.
        start: Guided purifier of the same model to continue from; None starts untrained.
        seed: Seed of all random draws.
        force: Whether an existing file is overwritten.
        progress: Function called after each training step, or each candidate of a pool.

    Raises:
        InputError: If a setting or the number of files is out of range, or ``start`` is given for
            another method than guided.
        OutputError: If ``out`` exists and ``force`` is false, or cannot be written.
        ResumeError: If ``<out>.partial`` belongs to another training.
        StateError: If ``start`` is no guided purifier of this model.
    """
    method = {kind: name for name, kind in FIT_SETTINGS.items()}[type(settings)]
    if start is not None and not isinstance(settings, GuidedFit):
        raise InputError(
            f"method {method} got {start} to start from, expected none, because only a guided "
            "purifier can be trained further; leave it out, or choose `method=guided`"
        )
    require_new(out, force=force)
    first = None if start is None else GuidedNip.load(start, model_id=pretrained.model_id)
    benign = read_benign(files, reader, crop_s=settings.crop_s)
    kept: float | None = None
    if isinstance(settings, GuidedFit):
        kept = _fit_and_keep(pretrained, benign, settings, first, out, seed, force, progress)
    else:
        save = _fit_at_once(pretrained, benign, settings, seed, progress)
        save(out, force=force)
    return FittedPurifier(
        out, method, len(benign.contents), tuple(benign.failures), kept, pretrained.model_id
    )


def _fit_at_once(
    pretrained: PretrainedModel,
    benign: Benign,
    settings: FitSettings,
    seed: int,
    progress: FitProgress,
) -> Callable[..., None]:
    """Fit a purifier whose fit is not resumed; return the function that saves it."""
    size = settings.batch_size
    if isinstance(settings, PoolFit):
        total = settings.candidates
        pool = fit_pool(
            pretrained,
            benign,
            settings.pool,
            candidates=total,
            batch_size=size,
            seed=seed,
            progress=lambda done: progress(done, total, None),
        )
        return pool.save
    if isinstance(settings, ClassNeuronsFit):
        share, items = settings.share, settings.items
        neurons = fit_neurons(
            pretrained, benign, share=share, items=items, batch_size=size, seed=seed
        )
        return partial(neurons.save, model_id=pretrained.model_id)
    if isinstance(settings, PatchDictionaryFit):
        coding = fit_patch_dictionary(
            pretrained,
            benign,
            items=settings.items,
            patch=settings.patch,
            atoms=settings.atoms,
            nonzero=settings.nonzero,
            patches_per_item=settings.patches_per_item,
            batch_size=size,
            seed=seed,
        )
        return partial(coding.save, model_id=pretrained.model_id)
    raise TypeError(f"no method has settings of type {type(settings).__name__}")


def _fit_and_keep(
    pretrained: PretrainedModel,
    benign: Benign,
    settings: GuidedFit,
    start: GuidedNip | None,
    out: Path,
    seed: int,
    force: bool,
    progress: FitProgress,
) -> float | None:
    """Train and write a guided purifier; return the share of predictions kept at the end."""
    checkpoint = out.with_name(f"{out.name}.partial")
    shares: deque[float] = deque(maxlen=_LAST)

    def report(step: int, loss: float, kept: float) -> None:  # noqa: ARG001
        shares.append(kept)
        progress(step, settings.steps, kept)

    purifier = fit_guided(
        pretrained,
        benign,
        settings.training(guided_settings(pretrained), seed=seed),
        batch_size=settings.batch_size,
        start=start,
        checkpoint=checkpoint,
        progress=report,
    )
    purifier.save(out, model_id=pretrained.model_id, force=force)
    checkpoint.unlink(missing_ok=True)
    return sum(shares) / len(shares) if shares else None


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
) -> ClassNeurons:
    """Select the neurons of each class of the model, for ``ClassNeurons``.

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
    return ClassNeurons.fit(
        pretrained.model,
        _inputs(pretrained, benign, items, batch_size=batch_size, seed=seed),
        layers=pretrained.card.default_taps if layers is None else layers,
        share=share,
        seen=benign.contents,
    )


def fit_patch_dictionary(
    pretrained: PretrainedModel,
    benign: Benign,
    *,
    items: int = 256,
    patch: int = 8,
    atoms: int = 128,
    nonzero: int = 6,
    patches_per_item: int = 200,
    batch_size: int = 32,
    seed: int = 0,
) -> PatchDictionary:
    """Learn the dictionary of ``PatchDictionary``, which stands in for STL.

    Args:
        pretrained: Model whose input is rebuilt.
        benign: Source of benign items like those expected in use.
        items: Number of items from which patches are drawn.
        patch: Number of rows and of columns of a patch.
        atoms: Number of atoms in the dictionary.
        nonzero: Largest number of atoms that a patch is rebuilt from.
        patches_per_item: Number of patches drawn from each item.
        batch_size: Number of items processed at a time.
        seed: Seed of the draw of items and patches, and of the learning.

    Raises:
        InputError: If a number is out of range, or nearly all patches are flat.
    """
    return PatchDictionary.fit(
        _inputs(pretrained, benign, items, batch_size=batch_size, seed=seed),
        bounds=pretrained.model.input_bounds,
        generator=torch.Generator().manual_seed(seed),
        seen=benign.contents,
        patch=patch,
        atoms=atoms,
        nonzero=nonzero,
        patches_per_item=patches_per_item,
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
