"""Detectors under evaluation: NCCR fitted on clean audio, and the score change it has to beat."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from sklearn.pipeline import Pipeline, make_pipeline
from torch import Tensor

from nip_audio.attacks.objectives import Guarded, Objective
from nip_audio.audio.io import samples_sha256
from nip_audio.core.adapter import Batch
from nip_audio.core.decision import evidence_vector
from nip_audio.core.metrics import auroc
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.nccr import NccrConfig, measure_nccr
from nip_audio.core.state import write_atomic
from nip_audio.detectors.conformal import conformal_threshold, out_of_fold_distances
from nip_audio.detectors.density import CleanDensity
from nip_audio.detectors.differentiable import GraphDetector, NccrDistance
from nip_audio.detectors.nccr_measure import signed_entries
from nip_audio.detectors.rates import LogRates
from nip_audio.errors import InputError
from nip_audio.evaluation.seeds import seed_of
from nip_audio.evaluation.systems import EvaluatedSystem, Item

__all__ = [
    "DETECTOR",
    "RATES",
    "Detector",
    "Evidence",
    "Guard",
    "evidence_of",
    "fit_detectors",
    "gather",
    "guard_of",
]

Array = NDArray[np.float64]

DETECTOR = "NCCR, clean only"
"""Name of the detector that an adaptive attacker attacks together with the model."""

EVIDENCE_VERSION = 2
"""Of what is kept of measured clips."""

RATES = (0.05, 0.01)
"""False-positive rates at which thresholds are set."""


@dataclass(frozen=True)
class Evidence:
    """What detectors see of some clips: no label, no clean original.

    Attributes:
        rates: (n, F + 1) NCCR evidence and, last, the length: rows of ``NccrMeasure``.
        score_changes: (n, noises) mean |change| of the score of the class that the model names,
            under the very same noise.
        signed: How many of the evidence's entries are signed changes.
    """

    rates: Array
    score_changes: Array
    signed: int

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.rates)


@torch.no_grad()
def gather(
    model: InstrumentedModel,
    clips: Iterable[Tensor],
    config: NccrConfig,
    *,
    seed: int,
    progress: Callable[[], None] = lambda: None,
) -> Evidence:
    """Measure clips, each with noise that depends on the seed and its own content alone.

    Args:
        model: With a head.
        clips: (*S) values of the model's raw input.
        config: Noises and taps.
        seed: Of the noise.
        progress: Called after each clip.
    """
    rates, changes = [], []
    for clip in clips:
        generator = torch.Generator().manual_seed(seed_of(seed, samples_sha256(clip)))
        result = measure_nccr(model, Batch(clip[None]), config, generator=generator)
        scores = model.score_embeddings(result.embedding[None])[0]
        named = int(scores.argmax())
        noisy = model.score_embeddings(result.draw_embeddings.flatten(0, 1))[:, named]
        change = (noisy - scores[named]).abs().reshape(len(config.noises), -1).mean(dim=1)
        vector = evidence_vector(model, result).double().numpy()
        rates.append(np.append(vector, float(clip.shape[-1])))
        changes.append(change.double().numpy())
        progress()
    return Evidence(np.stack(rates), np.stack(changes), signed_entries(config, head=True))


@dataclass(frozen=True)
class Detector:
    """A score that is high for attacked clips, and thresholds set on clean ones.

    Attributes:
        name: As the tables call it.
        score: Evidence → (n,).
        thresholds: Score above which a clip is flagged, by false-positive rate.
        fitted: What the score comes from, if it was fitted.
    """

    name: str
    score: Callable[[Evidence], Array]
    thresholds: Mapping[float, float]
    fitted: Pipeline | None = None

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
        NCCR, and |Δscore| under the same noise: its plain mean, and the same two-sided detector
        that NCCR has.

    Raises:
        CalibrationError: With too few clips for the rates.
    """
    speakers = [item.speaker for item in items]

    def two_sided(rows: Callable[[Evidence], Array], name: str, signed: int) -> Detector:
        scale = LogRates(signed=signed)
        fitted: Pipeline = make_pipeline(scale, CleanDensity()).fit(rows(calibration))
        held_out = out_of_fold_distances(fitted, rows(calibration), speakers)
        limits = {rate: conformal_threshold(held_out, rate) for rate in RATES}
        return Detector(name, lambda e: -fitted.score_samples(rows(e)), limits, fitted)

    means = calibration.score_changes.mean(axis=1)
    return (
        two_sided(lambda e: e.rates, DETECTOR, calibration.signed),
        Detector(
            "|Δscore|, mean",
            lambda e: e.score_changes.mean(axis=1),
            {rate: conformal_threshold(means, rate) for rate in RATES},
        ),
        two_sided(
            lambda e: np.column_stack([e.score_changes, e.rates[:, -1]]), "|Δscore|, two-sided", 0
        ),
    )


@dataclass(frozen=True)
class Guard:
    """The NCCR detector as an attacker knows it: everything but the detector's own draws.

    Attributes:
        config: What is measured, with as many draws as the attacker can afford in every step.
        rates: Fitted.
        detector: Fitted.
        threshold: Above which a clip is flagged.
        scale: How much more than the threshold weighs as much as a logit.
    """

    config: NccrConfig
    rates: LogRates
    detector: GraphDetector
    threshold: float
    scale: float

    def settings(self) -> dict[str, Any]:
        """Return what attacks on it depend on, as plain JSON values."""
        digest = hashlib.sha256()
        for fitted in (self.rates, self.detector):
            for _, tensor in sorted(fitted.to_tensors().items()):
                digest.update(tensor.numpy().tobytes())
        return {
            "name": DETECTOR,
            "config": self.config.to_json(),
            "threshold": self.threshold,
            "scale": self.scale,
            "fitted_sha256": digest.hexdigest(),
        }

    def guard(self, objective: Objective, *, generator: torch.Generator) -> Guarded:
        """Return the aim to have one's way and not to be noticed."""
        evidence = NccrDistance(
            objective.model, self.config, self.rates, self.detector, generator=generator
        )
        return Guarded(objective, evidence, threshold=self.threshold, scale=self.scale)


def guard_of(detectors: Sequence[Detector], config: NccrConfig) -> Guard:
    """Return the first detector, NCCR, as an attacker knows it; he draws once a step."""
    nccr = detectors[0]
    if nccr.fitted is None:
        raise InputError(f"{nccr.name} was not fitted; pass what fit_detectors returned")
    rates, detector = (step for _, step in nccr.fitted.steps)
    limit = nccr.thresholds[RATES[0]]
    return Guard(replace(config, draws=1), rates, detector, limit, scale=limit / 10)


def evidence_of(
    system: EvaluatedSystem, clips: Sequence[Tensor], config: NccrConfig, folder: Path, *, seed: int
) -> Evidence:
    """Measure clips, or read what was measured of the very same before."""
    settings = json.dumps(config.to_json() | {"evidence": EVIDENCE_VERSION}, sort_keys=True)
    parts = [system.identity, settings, str(seed), *(samples_sha256(clip) for clip in clips)]
    path = folder / f"{hashlib.sha256(':'.join(parts).encode()).hexdigest()[:24]}.safetensors"
    if path.exists():
        read = {name: tensor.numpy() for name, tensor in load(path.read_bytes()).items()}
        return Evidence(read["rates"], read["score_changes"], signed_entries(config, head=True))
    made = gather(system.model, clips, config, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"rates": made.rates, "score_changes": made.score_changes}
    tensors = {name: torch.from_numpy(array).contiguous() for name, array in arrays.items()}
    write_atomic(path, save(tensors), force=True)
    return made
