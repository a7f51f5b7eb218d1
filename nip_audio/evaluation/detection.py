"""Detectors under evaluation: NCCR fitted on clean audio, and the score change it has to beat."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline, make_pipeline
from torch import Tensor

from nip_audio.core.adapter import Batch
from nip_audio.core.metrics import auroc
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.nccr import NccrConfig, measure_nccr
from nip_audio.detectors.clean import CleanDistance
from nip_audio.detectors.conformal import conformal_threshold, out_of_fold_distances
from nip_audio.detectors.rates import LogRates
from nip_audio.evaluation.adversarial_sets import seed_of
from nip_audio.evaluation.systems import Item
from nip_audio.screening.measure import DEFAULT_NOISES

__all__ = ["RATES", "Detector", "Evidence", "fit_detectors", "gather", "noises_for"]

Array = NDArray[np.float64]

RATES = (0.05, 0.01)
"""False-positive rates at which thresholds are set."""


@dataclass(frozen=True)
class Evidence:
    """What detectors see of some clips: no label, no clean original.

    Attributes:
        rates: (n, F + 1) NCCR vectors and, last, seconds.
        score_changes: (n, noises) mean |change| of the score of the class that the model names,
            under the very same noise.
    """

    rates: Array
    score_changes: Array

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.rates)


def noises_for(model: InstrumentedModel, taps: Sequence[str], *, draws: int) -> NccrConfig:
    """Return the default noises at the taps; those of the waveform need a front end."""
    levels = {"raw", "input"} if model.front_end is not None else {"input"}
    return NccrConfig(tuple(taps), tuple(n for n in DEFAULT_NOISES if n.level in levels), draws)


@torch.no_grad()
def gather(
    model: InstrumentedModel,
    clips: Iterable[Tensor],
    config: NccrConfig,
    *,
    seed: int,
    seconds_per_position: float,
    progress: Callable[[], None] = lambda: None,
) -> Evidence:
    """Measure clips, each with noise that depends on the seed and its own content alone.

    Args:
        model: With a head.
        clips: (*S) values of the model's raw input.
        config: Noises and taps.
        seed: Of the noise.
        seconds_per_position: Of the last axis.
        progress: Called after each clip.
    """
    rates, changes = [], []
    for clip in clips:
        generator = torch.Generator().manual_seed(seed_of(seed, _content(clip)))
        result = measure_nccr(model, Batch(clip[None]), config, generator=generator)
        scores = model.score_embeddings(result.embedding[None])[0]
        named = int(scores.argmax())
        noisy = model.score_embeddings(result.draw_embeddings.flatten(0, 1))[:, named]
        change = (noisy - scores[named]).abs().reshape(len(config.noises), -1).mean(dim=1)
        seconds = clip.shape[-1] * seconds_per_position
        rates.append(np.append(result.vector.double().numpy(), seconds))
        changes.append(change.double().numpy())
        progress()
    return Evidence(np.stack(rates), np.stack(changes))


def _content(clip: Tensor) -> str:
    return hashlib.sha256(clip.contiguous().numpy().tobytes()).hexdigest()


@dataclass(frozen=True)
class Detector:
    """A score that is high for attacked clips, and thresholds set on clean ones.

    Attributes:
        name: As the tables call it.
        score: Evidence → (n,).
        thresholds: Score above which a clip is flagged, by false-positive rate.
    """

    name: str
    score: Callable[[Evidence], Array]
    thresholds: Mapping[float, float]

    def auroc(self, attacked: Evidence, clean: Evidence) -> float:
        """Area under the ROC curve."""
        return auroc(self.score(attacked), self.score(clean))

    def flagged(self, evidence: Evidence, rate: float) -> NDArray[np.bool_]:
        """Tell which clips are above the threshold set for a rate."""
        return np.asarray(self.score(evidence) > self.thresholds[rate])


def fit_detectors(calibration: Evidence, items: Sequence[Item]) -> tuple[Detector, ...]:
    """Fit on clean clips of the ``calibrate`` role alone; no attack is seen.

    Args:
        calibration: Of the clips.
        items: The clips, for their speakers: thresholds come from speakers held out.

    Returns:
        NCCR, and |Δscore| under the same noise: its plain mean, and the same two-sided distance
        that NCCR has.

    Raises:
        CalibrationError: With too few clips for the rates.
    """
    speakers = [item.speaker for item in items]

    def two_sided(rows: Callable[[Evidence], Array], name: str) -> Detector:
        fitted: Pipeline = make_pipeline(LogRates(), CleanDistance()).fit(rows(calibration))
        held_out = out_of_fold_distances(fitted, rows(calibration), speakers)
        limits = {rate: conformal_threshold(held_out, rate) for rate in RATES}
        return Detector(name, lambda e: -fitted.score_samples(rows(e)), limits)

    means = calibration.score_changes.mean(axis=1)
    return (
        two_sided(lambda e: e.rates, "NCCR, clean only"),
        Detector(
            "|Δscore|, mean",
            lambda e: e.score_changes.mean(axis=1),
            {rate: conformal_threshold(means, rate) for rate in RATES},
        ),
        two_sided(
            lambda e: np.column_stack([e.score_changes, e.rates[:, -1]]), "|Δscore|, two-sided"
        ),
    )
