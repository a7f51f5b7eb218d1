"""What clean pictures look like to one model, and the judgement of others by it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.pipeline import make_pipeline

from nip_audio.core.adapter import Batch
from nip_audio.core.nccr import NccrConfig
from nip_audio.core.noise import Noise
from nip_audio.core.state import State, load_state, save_state
from nip_audio.detectors.conformal import (
    conformal_p_value,
    conformal_threshold,
    out_of_fold_distances,
)
from nip_audio.detectors.density import CleanDensity
from nip_audio.detectors.nccr_measure import NccrMeasure, signed_entries
from nip_audio.detectors.rates import LogRates
from nip_audio.errors import CalibrationError, ImageError, StateError
from nip_audio.image.adapter import IMAGE_SUFFIXES, Image, ImageAdapter
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.measure import noise_generator

__all__ = [
    "PICTURE_NOISES",
    "JudgedPicture",
    "PictureCalibration",
    "calibrate_pictures",
    "judge_picture",
    "walk_pictures",
]

Array = NDArray[np.float64]

_KIND = "picture calibration"
_FEWEST = 20

PICTURE_NOISES = (
    *(Noise("gaussian", "input", scale) for scale in (0.01, 0.03, 0.1, 0.25)),
    *(Noise("mask", "input", share, 1) for share in (0.03, 0.15)),
)
"""White noise, and single values set to the lower bound, which is what sees JSMA."""


@dataclass(frozen=True)
class PictureCalibration:
    """Fitted on clean pictures alone, for one model.

    Attributes:
        model_id: The model.
        config: NCCR settings; judging measures with the same.
        rates: Scale of NCCR rows.
        detector: Local outlier factor of the scaled rows.
        distances: (n,) sorted out-of-fold distances of the clean pictures.
        failures: Pictures left out.
    """

    model_id: str
    config: NccrConfig
    rates: LogRates
    detector: CleanDensity
    distances: Array
    failures: tuple[ImageError, ...] = ()

    def threshold(self, false_positive_rate: float) -> float:
        """Return the distance above which a picture is flagged.

        Raises:
            CalibrationError: If there are too few pictures for the rate.
        """
        return conformal_threshold(self.distances, false_positive_rate)

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write atomically."""
        tensors = {"distances": torch.from_numpy(self.distances)}
        tensors |= {f"rates.{k}": t for k, t in self.rates.to_tensors().items()}
        tensors |= {f"detector.{k}": t for k, t in self.detector.to_tensors().items()}
        meta = {
            "nccr": self.config.to_json(),
            "signed": self.rates.signed,
            "offset": self.detector.offset_,
            "neighbours": self.detector.neighbours,
        }
        save_state(path, State(_KIND, self.model_id, tensors, meta), force=force)

    @staticmethod
    def load(path: Path, *, model_id: str) -> PictureCalibration:
        """Read, refusing a calibration made for another model, or by another version.

        Raises:
            StateError: With the remedy.
        """
        state = load_state(path, kind=_KIND, model_id=model_id)

        def parts(name: str) -> dict[str, torch.Tensor]:
            start = f"{name}."
            return {
                k.removeprefix(start): t for k, t in state.tensors.items() if k.startswith(start)
            }

        meta = state.meta
        try:
            return PictureCalibration(
                model_id,
                NccrConfig.from_json(meta["nccr"]),
                LogRates.from_tensors(parts("rates"), signed=meta["signed"]),
                CleanDensity.from_tensors(
                    parts("detector"), offset=meta["offset"], neighbours=meta["neighbours"]
                ),
                state.tensors["distances"].numpy(),
            )
        except KeyError as err:
            raise StateError(
                f"{path} lacks {err}, expected a calibration of this version; make it anew by "
                "nip-audio calibrate"
            ) from err


@dataclass(frozen=True)
class JudgedPicture:
    """What the detector makes of one picture.

    Attributes:
        path: The file.
        named: What the model names it.
        verdict: ``clean`` or ``adversarial``.
        distance: From clean pictures.
        threshold: From which on a picture is flagged.
        p_value: Conformal.
    """

    path: Path
    named: str
    verdict: str
    distance: float
    threshold: float
    p_value: float

    def to_json(self) -> dict[str, Any]:
        """Return rounded plain values."""
        return {
            "file": str(self.path),
            "named": self.named,
            "verdict": self.verdict,
            "distance": round(self.distance, 6),
            "threshold": round(self.threshold, 6),
            "p_value": round(self.p_value, 6),
        }


def walk_pictures(sources: Sequence[Path]) -> list[Path]:
    """List pictures: files as they are given, folders with all below them, sorted."""
    found: list[Path] = []
    for source in sources:
        inside = (p for p in source.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        found += sorted(inside) if source.is_dir() else [source]
    return found


def calibrate_pictures(
    pretrained: PretrainedModel,
    paths: Iterable[Path],
    *,
    draws: int = 4,
    seed: int = 0,
    progress: Callable[[Path], None] = lambda path: None,
) -> PictureCalibration:
    """Fit on clean pictures; bad files and copies are left out and listed.

    Args:
        pretrained: Model of pictures.
        paths: Clean pictures like those to be judged.
        draws: Of each noise.
        seed: Of the noise.
        progress: Called after each picture.

    Raises:
        CalibrationError: With fewer than 20 usable pictures.
    """
    adapter = ImageAdapter(*pretrained.card.image_shape)
    config = NccrConfig(pretrained.card.default_taps, PICTURE_NOISES, draws)
    rows: dict[str, Array] = {}
    failures: list[ImageError] = []
    for path in paths:
        try:
            picture = adapter.load(path)
        except ImageError as err:
            failures.append(err)
        else:
            if picture.content_sha256 not in rows:
                rows[picture.content_sha256] = _measured(pretrained, picture, config, seed)
        progress(path)
    if len(rows) < _FEWEST:
        raise CalibrationError(
            f"{len(rows)} usable pictures ({len(failures)} failed), expected at least {_FEWEST}; "
            "99 or more allow a false-positive rate of 1 %"
        )
    scale = LogRates(signed=signed_entries(config, head=True))
    clean = np.stack(list(rows.values()))
    judge = make_pipeline(scale, CleanDensity()).fit(clean)
    held_out = out_of_fold_distances(judge, clean, list(rows))
    return PictureCalibration(
        pretrained.model_id, config, judge[0], judge[1], np.sort(held_out), tuple(failures)
    )


def judge_picture(
    pretrained: PretrainedModel,
    path: Path,
    calibration: PictureCalibration,
    *,
    false_positive_rate: float,
    seed: int = 0,
) -> JudgedPicture:
    """Tell whether a picture reacts to noise as clean ones do not.

    Raises:
        ImageError: If the file cannot be used.
        CalibrationError: If the calibration has too few pictures for the rate.
    """
    threshold = calibration.threshold(false_positive_rate)
    picture = ImageAdapter(*pretrained.card.image_shape).load(path)
    row = _measured(pretrained, picture, calibration.config, seed)
    scaled = calibration.rates.transform([row])
    distance = -float(calibration.detector.score_samples(scaled)[0])
    named = int(pretrained.model.predict(Batch(picture.pixels[None]))[0])
    return JudgedPicture(
        path,
        pretrained.card.labels[named],
        "adversarial" if distance > threshold else "clean",
        distance,
        threshold,
        conformal_p_value(calibration.distances, distance),
    )


def _measured(pretrained: PretrainedModel, picture: Image, config: NccrConfig, seed: int) -> Array:
    generator = noise_generator(seed, picture.content_sha256)
    item = Batch(picture.pixels[None])
    return NccrMeasure(config).measure(pretrained.model, item, generator=generator)
