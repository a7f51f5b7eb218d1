"""Measure the accuracy of closed-set speaker identification, with and without white noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nip_audio.audio.crops import cut
from nip_audio.audio.io import ReadSettings
from nip_audio.audio.manifest import Recording
from nip_audio.core.adapter import Batch
from nip_audio.core.metrics import Interval, bootstrap
from nip_audio.errors import InputError
from nip_audio.evaluation.roles import refuse_overlap
from nip_audio.models.pretrained import PretrainedModel

__all__ = [
    "WHITE_NOISES",
    "Crop",
    "accuracy",
    "correct_crops",
    "correct_crops_by",
    "new_sessions",
    "read_crops",
]

WHITE_NOISES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "clean": lambda x: x.new_zeros(()),
    "noise_0.002_rms": lambda x: x.new_tensor(0.002),
    "noise_20_db_snr": lambda x: x.square().mean().sqrt() / 10,
}
"""Conditions by name: functions of (N,) samples that return the rms of the noise to add."""


@dataclass(frozen=True)
class Crop:
    """A clip of one recording.

    Attributes:
        recording: Recording that the clip was cut from.
        samples: (N,) samples in [-1, 1].
        content_sha256: Hash of the whole recording.
    """

    recording: Recording
    samples: Tensor
    content_sha256: str

    @property
    def speaker(self) -> str:
        """Name of the speaker; empty if unknown."""
        return self.recording.speaker or ""


def read_crops(
    recordings: Iterable[Recording], settings: ReadSettings, *, crop_s: float | None = None
) -> list[Crop]:
    """Read recordings and cut them into clips; the rest is dropped. None keeps them whole."""
    crops = []
    for recording in recordings:
        audio = recording.read(settings)
        crops += [Crop(recording, c, audio.content_sha256) for c in cut(audio, crop_s)]
    return crops


@torch.no_grad()
def correct_crops_by(
    name: Callable[[Tensor], str],
    crops: Iterable[Crop],
    noise_rms: Callable[[Tensor], Tensor],
    *,
    generator: torch.Generator,
) -> NDArray[np.float64]:
    """Return which clips a classifier gets right under white noise.

    Args:
        name: Classifier: function of (N,) samples in [-1, 1] that returns a speaker's name.
        crops: Clips to classify.
        noise_rms: Function of the samples that returns the noise's rms; see ``WHITE_NOISES``.
        generator: Random generator of the noise.

    Returns:
        (crops,) with 1 where the prediction is correct, else 0.
    """
    right = []
    for crop in crops:
        noise = torch.randn(crop.samples.shape, generator=generator)
        noisy = (crop.samples + noise_rms(crop.samples) * noise).clamp(-1, 1)
        right.append(float(name(noisy) == crop.speaker))
    return np.array(right)


def new_sessions(crops: Iterable[Crop], trained: Iterable[Recording]) -> NDArray[np.bool_]:
    """Return which clips come from folders (LibriSpeech: chapters) that were not trained on."""
    known = {recording.folder for recording in trained}
    return np.array([c.recording.folder not in known for c in crops])


def correct_crops(
    pretrained: PretrainedModel,
    crops: Sequence[Crop],
    noise_rms: Callable[[Tensor], Tensor],
    *,
    generator: torch.Generator,
) -> NDArray[np.float64]:
    """Return which clips a model classifies correctly under white noise.

    Args:
        pretrained: Model with a head.
        crops: Clips of speakers that the model knows.
        noise_rms: Function of the samples that returns the noise's rms; see ``WHITE_NOISES``.
        generator: Random generator of the noise.

    Returns:
        (crops,) with 1 where the prediction is correct, else 0.

    Raises:
        InputError: If the model does not know a speaker, or was trained on one of the clips.
    """
    labels = pretrained.card.labels
    strangers = sorted({c.speaker for c in crops} - set(labels))
    if strangers or not crops:
        raise InputError(
            f"{len(crops)} crops with {len(strangers)} speakers that {pretrained.card.name} does "
            f"not know ({', '.join(strangers[:5])}); give recordings of its own speakers"
        )
    refuse_overlap(
        pretrained.card.seen, (c.content_sha256 for c in crops), what=pretrained.card.name
    )
    return correct_crops_by(
        lambda samples: labels[int(pretrained.model.predict(Batch(samples[None])))],
        crops,
        noise_rms,
        generator=generator,
    )


def accuracy(right: NDArray[np.float64], crops: Sequence[Crop], *, seed: int) -> Interval:
    """Return the accuracy with its interval; speakers are resampled, as their clips are alike."""
    speakers = np.array([c.speaker for c in crops])
    members = [np.flatnonzero(speakers == s) for s in np.unique(speakers)]

    def mean(chosen: NDArray[np.intp]) -> float:
        return float(right[np.concatenate([members[i] for i in chosen])].mean())

    return bootstrap(mean, len(members), seed=seed)
