"""Everything the screening measures of one recording, in one pass over it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from nip_audio.audio.io import Audio
from nip_audio.core.adapter import Batch
from nip_audio.core.nccr import NccrConfig, measure_nccr
from nip_audio.core.noise import Noise
from nip_audio.models.pretrained import PretrainedModel

__all__ = [
    "DEFAULT_NOISES",
    "DETECTION_NOISES",
    "Measurement",
    "default_config",
    "measure",
    "noise_generator",
]

Array = NDArray[np.float64]

DEFAULT_NOISES = (
    Noise("gaussian", "input", 0.01),
    Noise("gaussian", "input", 0.05),
    Noise("mask", "input", 0.1),
    Noise("gaussian", "raw", 0.0002),
    Noise("gaussian", "raw", 0.0005),
    Noise("gaussian", "raw", 0.001),
    Noise("gaussian", "raw", 0.002),
    Noise("gaussian", "raw", 0.008),
)


DETECTION_NOISES = tuple(
    Noise("gaussian", "raw", rms) for rms in (0.0005, 0.001, 0.002, 0.004, 0.008)
)
"""Of detectors that see changes of the decision: one draw of each told as much as thirteen noises
with eight draws (docs/nccr.md)."""


@dataclass(frozen=True)
class Measurement:
    """What is known of one recording, without any judgement.

    Attributes:
        embedding: (D,) of unit length.
        nccr: (noises · layers,) change rates, in the order of ``NccrConfig.names``.
        spectrum: (2F,) mean and standard deviation over time of each band of the model input, after
            the overall level is removed: what kind of audio it is.
        duration_s: Seconds.
    """

    embedding: Array
    nccr: Array
    spectrum: Array
    duration_s: float

    @property
    def rates(self) -> Array:
        """(noises · layers + 1,) change rates and, last, the length: a row for ``LogRates``."""
        return np.append(self.nccr, self.duration_s)


def default_config(pretrained: PretrainedModel, *, draws: int = 4) -> NccrConfig:
    """Return the noises that were chosen by measurement, at the card's default taps."""
    return NccrConfig(pretrained.card.default_taps, DEFAULT_NOISES, draws)


def noise_generator(seed: int, content_sha256: str) -> torch.Generator:
    """Seed noise from the run and the content alone: order and batching change nothing."""
    digest = hashlib.sha256(f"{seed}:{content_sha256}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def measure(
    pretrained: PretrainedModel, audio: Audio, config: NccrConfig, *, seed: int
) -> Measurement:
    """Measure one recording; equal content and seed give equal results."""
    item = Batch(audio.samples[None])
    generator = noise_generator(seed, audio.sha256)
    result = measure_nccr(pretrained.model, item, config, generator=generator)
    with torch.no_grad():
        features = pretrained.model.to_input(item).x[0]
    features = features - features.mean()
    spectrum = torch.cat([features.mean(dim=1), features.std(dim=1)])
    embedding = torch.nn.functional.normalize(result.embedding, dim=0)
    return Measurement(
        embedding=embedding.double().numpy(),
        nccr=result.vector.double().numpy(),
        spectrum=spectrum.double().numpy(),
        duration_s=audio.duration_s,
    )
