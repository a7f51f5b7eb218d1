"""Closed-set identification: how often a model names the right speaker, with and without noise."""

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
    "hits",
    "named_rightly",
    "new_sessions",
    "read_crops",
]

WHITE_NOISES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "clean": lambda x: x.new_zeros(()),
    "noise_0.002_rms": lambda x: x.new_tensor(0.002),
    "noise_20_db_snr": lambda x: x.square().mean().sqrt() / 10,
}
"""Conditions: (N,) samples → rms of the white noise added to them."""


@dataclass(frozen=True)
class Crop:
    """A piece of one recording.

    Attributes:
        recording: Where it is from.
        samples: (N,).
        content_sha256: Of the whole recording that was read.
    """

    recording: Recording
    samples: Tensor
    content_sha256: str

    @property
    def speaker(self) -> str:
        """Whose voice it is."""
        return self.recording.speaker or ""


def read_crops(
    recordings: Iterable[Recording], settings: ReadSettings, *, crop_s: float | None = None
) -> list[Crop]:
    """Read recordings and cut them, dropping what is left at the end; None keeps them whole."""
    crops = []
    for recording in recordings:
        audio = recording.read(settings)
        crops += [Crop(recording, c, audio.content_sha256) for c in cut(audio, crop_s)]
    return crops


@torch.no_grad()
def named_rightly(
    name: Callable[[Tensor], str],
    crops: Iterable[Crop],
    noise_rms: Callable[[Tensor], Tensor],
    *,
    generator: torch.Generator,
) -> NDArray[np.float64]:
    """Tell which crops anything that names speakers classifies correctly under white noise.

    Args:
        name: (N,) samples in [-1, 1] → the speaker's name.
        crops: What to name.
        noise_rms: Level of the noise, given the samples; see ``WHITE_NOISES``.
        generator: Source of the noise.

    Returns:
        (crops,) of 0 and 1.
    """
    right = []
    for crop in crops:
        noise = torch.randn(crop.samples.shape, generator=generator)
        noisy = (crop.samples + noise_rms(crop.samples) * noise).clamp(-1, 1)
        right.append(float(name(noisy) == crop.speaker))
    return np.array(right)


def new_sessions(crops: Iterable[Crop], trained: Iterable[Recording]) -> NDArray[np.bool_]:
    """Tell which crops are from folders (LibriSpeech: chapters) that were not trained on."""
    known = {recording.folder for recording in trained}
    return np.array([c.recording.folder not in known for c in crops])


def hits(
    pretrained: PretrainedModel,
    crops: Sequence[Crop],
    noise_rms: Callable[[Tensor], Tensor],
    *,
    generator: torch.Generator,
) -> NDArray[np.float64]:
    """Tell which crops the model classifies correctly under white noise.

    Args:
        pretrained: Model with a head.
        crops: Of speakers it knows.
        noise_rms: Level of the noise, given the samples; see ``WHITE_NOISES``.
        generator: Source of the noise.

    Returns:
        (crops,) of 0 and 1.

    Raises:
        InputError: If a speaker is unknown to the model, or it was trained on one of the crops.
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
    return named_rightly(
        lambda samples: labels[int(pretrained.model.predict(Batch(samples[None])))],
        crops,
        noise_rms,
        generator=generator,
    )


def accuracy(right: NDArray[np.float64], crops: Sequence[Crop], *, seed: int) -> Interval:
    """Average hits; the interval resamples speakers, since one speaker's crops share a session."""
    speakers = np.array([c.speaker for c in crops])
    members = [np.flatnonzero(speakers == s) for s in np.unique(speakers)]

    def mean(chosen: NDArray[np.intp]) -> float:
        return float(right[np.concatenate([members[i] for i in chosen])].mean())

    return bootstrap(mean, len(members), seed=seed)
