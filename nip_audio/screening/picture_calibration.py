"""Fit a calibration on clean images."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import make_pipeline

from nip_audio.audio.manifest import Recording
from nip_audio.core.nccr import NccrConfig
from nip_audio.core.noise import Noise
from nip_audio.detectors.conformal import out_of_fold_distances
from nip_audio.detectors.density import CleanDensity
from nip_audio.detectors.nccr_measure import signed_entries
from nip_audio.detectors.rates import LogRates
from nip_audio.errors import CalibrationError, FileError, ImageError
from nip_audio.image.adapter import ImageAdapter
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.kinds import Images
from nip_audio.screening.measure import measure_image
from nip_audio.screening.reading import read_once

__all__ = ["IMAGE_NOISES", "calibrate_images"]

_FEWEST = 20

IMAGE_NOISES = (
    *(Noise("gaussian", "input", scale) for scale in (0.01, 0.03, 0.1, 0.25)),
    *(Noise("mask", "input", share, 1) for share in (0.03, 0.15)),
)
"""White noise, and single values set to the lower bound, which reveal JSMA (the Jacobian-based
saliency map attack)."""


def calibrate_images(
    pretrained: PretrainedModel,
    files: Iterable[Recording],
    *,
    draws: int = 4,
    seed: int = 0,
    sources: str = "",
    progress: Callable[[Recording], None] = lambda file: None,
) -> Calibration:
    """Fit a calibration on clean images; unusable files and copies are left out and listed.

    Args:
        pretrained: Image model with a classifier.
        files: Clean images like those that will be screened.
        draws: Number of draws of each noise.
        seed: Seed of the noise generator.
        sources: Description of the images in words.
        progress: Called after each image.

    Raises:
        CalibrationError: If fewer than 20 images are usable.
        InputError: If the model has no classifier.
    """
    kind = Images(ImageAdapter(*pretrained.card.image_shape))
    config = NccrConfig(pretrained.card.default_taps, IMAGE_NOISES, draws)
    rows: dict[str, NDArray[np.float64]] = {}
    scales: list[float] = []
    failures: list[FileError] = []
    for _, picture in read_once(files, kind.read, _copy, failures, progress):
        measured = measure_image(pretrained, picture, config, seed=seed)
        rows[picture.content_sha256] = measured.evidence
        scales.append(kind.facts(picture).scale)
    if len(rows) < _FEWEST:
        raise CalibrationError(
            f"got {len(rows)} usable images ({len(failures)} failed), expected at least {_FEWEST}; "
            "add clean images: 99 or more allow a false-positive rate of 1 %"
        )
    clean = np.stack(list(rows.values()))
    scale = LogRates(signed=signed_entries(config, head=True))
    judge = make_pipeline(scale, CleanDensity()).fit(clean)
    return Calibration(
        model_id=pretrained.model_id,
        sample_rate_hz=None,
        names=True,
        config=config,
        rates=judge[0],
        detector=judge[1],
        distances=np.sort(out_of_fold_distances(judge, clean, list(rows))),
        seen=tuple(sorted(rows)),
        sources=sources,
        scale=min(scales),
        failures=tuple(failures),
    )


def _copy(file: Recording) -> ImageError:
    return ImageError(
        file.path,
        code="duplicate",
        found="the same image is already in the calibration",
        remedy="add other images, because copies do not allow a lower false-positive rate",
    )
