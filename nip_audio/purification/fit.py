"""Fit defences to a model on clean recordings of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.manifest import Recording
from nip_audio.core.adapter import Batch
from nip_audio.errors import AudioError, InputError
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purifiers.guided_training import GuidedSettings, Progress, train_guided
from nip_audio.purifiers.neuron_selecting import NeuronSelecting
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.purifiers.nip_pool import NipPool, PoolSettings

__all__ = ["CleanClips", "fit_guided", "fit_neurons", "fit_pool", "read_clips"]

_FEWEST = 8
_FULL_SCALE = 2**15


@dataclass(frozen=True)
class CleanClips:
    """Recordings in memory, and random crops of them.

    Attributes:
        samples: (N,) int16 each, to hold twice as many.
        contents: ``Audio.content_sha256`` of each.
        failures: What could not be read.
    """

    samples: tuple[Tensor, ...]
    contents: tuple[str, ...]
    failures: tuple[AudioError, ...] = ()

    def draw(self, generator: torch.Generator, *, items: int, crop_samples: int) -> Batch:
        """Draw crops, each of a recording drawn anew; a short recording is repeated.

        Returns:
            (items, crop_samples) in [-1, 1].
        """
        rows = torch.randint(len(self.samples), (items,), generator=generator)
        crops = []
        for row in rows.tolist():
            clip = self.samples[row]
            clip = clip.repeat(-(-crop_samples // len(clip)))
            start = int(torch.randint(len(clip) - crop_samples + 1, (1,), generator=generator))
            crops.append(clip[start : start + crop_samples])
        return Batch(torch.stack(crops).float() / _FULL_SCALE)


def read_clips(
    recordings: Iterable[Recording], adapter: WaveformAdapter, *, most_s: float = 4 * 3600.0
) -> CleanClips:
    """Read recordings; bad ones and copies are left out and listed.

    Args:
        recordings: Clean audio.
        adapter: How files are read.
        most_s: Seconds after which the rest is left unread: a purifier does not need more, and four
            hours take some 460 MB.

    Raises:
        InputError: If fewer than eight can be used.
    """
    samples: dict[str, Tensor] = {}
    failures = []
    total = 0.0
    for recording in recordings:
        if total >= most_s:
            break
        try:
            audio = recording.read(adapter.settings)
        except AudioError as err:
            failures.append(err)
            continue
        content = audio.content_sha256
        if content in samples:
            continue
        full_scale = (audio.samples * _FULL_SCALE).round().clamp(-_FULL_SCALE, _FULL_SCALE - 1)
        samples[content] = full_scale.to(torch.int16)
        total += audio.duration_s
    if len(samples) < _FEWEST:
        raise InputError(
            f"{len(samples)} usable recordings ({len(failures)} failed), expected at least "
            f"{_FEWEST}, and better hundreds; give a folder with more clean audio"
        )
    return CleanClips(tuple(samples.values()), tuple(samples), tuple(failures))


def fit_guided(
    pretrained: PretrainedModel,
    clips: CleanClips,
    settings: GuidedSettings,
    *,
    crop_s: float = 2.0,
    batch_size: int = 32,
    start: GuidedNip | None = None,
    checkpoint: Path | None = None,
    progress: Progress = lambda step, loss, kept: None,
) -> GuidedNip:
    """Train a guided purifier on random crops.

    Args:
        pretrained: What it is to defend.
        clips: Clean audio like that to come; no labels are needed.
        settings: Of the training.
        crop_s: Seconds of the crops; the purifier takes any length.
        batch_size: Crops a step.
        start: Purifier of the same model to go on from.
        checkpoint: File by which an interrupted training goes on.
        progress: Called after each step.

    Raises:
        InputError: If a crop would hold no sample, or a batch fewer than two crops.
        ResumeError: If the checkpoint is of another training.
    """
    crop_samples = round(crop_s * pretrained.card.sample_rate_hz)
    if crop_samples < 1 or batch_size < 2:
        raise InputError(f"crop_s is {crop_s} and batch_size {batch_size}, expected > 0 and ≥ 2")
    return train_guided(
        pretrained.model,
        lambda generator: clips.draw(generator, items=batch_size, crop_samples=crop_samples),
        settings,
        layers=pretrained.card.default_taps,
        model_id=pretrained.model_id,
        seen=clips.contents,
        start=start,
        checkpoint=checkpoint,
        progress=progress,
    )


def fit_pool(
    pretrained: PretrainedModel,
    clips: CleanClips,
    settings: PoolSettings,
    *,
    candidates: int = 256,
    layer: str | None = None,
    crop_s: float = 2.0,
    batch_size: int = 32,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> NipPool:
    """Fit the published NIP's pool of inverse perturbations to random crops.

    Args:
        pretrained: What it is to defend.
        clips: Clean audio like that to come; no labels are needed.
        settings: Of the method.
        candidates: Crops, each of which gives one candidate.
        layer: Whose neurons are looked at; None is the last of the model's default taps.
        crop_s: Seconds of the crops; a candidate is repeated or cut to the length of an input.
        batch_size: Crops at a time.
        seed: Of the crops.
        progress: Called with the number of candidates made.

    Raises:
        InputError: If a crop would hold no sample, or a number makes no sense.
    """
    return NipPool.fit(
        pretrained.model,
        _crops(pretrained, clips, candidates, crop_s=crop_s, batch_size=batch_size, seed=seed),
        layer=layer or pretrained.card.default_taps[-1],
        model_id=pretrained.model_id,
        settings=settings,
        seen=clips.contents,
        progress=progress,
    )


def fit_neurons(
    pretrained: PretrainedModel,
    clips: CleanClips,
    *,
    share: float = 0.9,
    layers: Sequence[str] | None = None,
    crops: int = 2048,
    crop_s: float = 2.0,
    batch_size: int = 32,
    seed: int = 0,
) -> NeuronSelecting:
    """Select the neurons of each of the model's own classes on random crops.

    Args:
        pretrained: What it is to defend.
        clips: Clean audio of the model's speakers; no labels are needed.
        share: Of the neurons of a layer that a class selects.
        layers: Whose neurons; None is the model's default taps.
        crops: Crops; a class that none of them is named as selects all neurons.
        crop_s: Seconds of the crops.
        batch_size: Crops at a time.
        seed: Of the crops.

    Raises:
        InputError: If a crop would hold no sample, a number makes no sense, or the model names no
            classes.
        LayerNotFoundError: If a layer is no module of the network.
    """
    return NeuronSelecting.fit(
        pretrained.model,
        _crops(pretrained, clips, crops, crop_s=crop_s, batch_size=batch_size, seed=seed),
        layers=pretrained.card.default_taps if layers is None else layers,
        share=share,
        seen=clips.contents,
    )


def _crops(
    pretrained: PretrainedModel,
    clips: CleanClips,
    count: int,
    *,
    crop_s: float,
    batch_size: int,
    seed: int,
) -> Iterator[Batch]:
    """Draw random crops, as model input."""
    crop_samples = round(crop_s * pretrained.card.sample_rate_hz)
    if crop_samples < 1 or batch_size < 1 or count < 1:
        raise InputError(
            f"crop_s is {crop_s}, batch_size {batch_size} and the number of crops {count}, "
            "expected > 0 and at least 1 each"
        )
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, count, batch_size):
        items = min(batch_size, count - start)
        with torch.no_grad():
            yield pretrained.model.to_input(
                clips.draw(generator, items=items, crop_samples=crop_samples)
            )
