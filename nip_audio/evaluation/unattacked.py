"""Measure a system without an attack: accuracy, false alarms, and harmless changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nip_audio.core.metrics import equal_error_rate, min_dcf
from nip_audio.evaluation.bench import Bench
from nip_audio.evaluation.bench_detectors import BenchDetectors
from nip_audio.evaluation.controls import CONTROLS, changed_clips
from nip_audio.evaluation.defences import ask
from nip_audio.evaluation.detector_judges import RATES
from nip_audio.evaluation.systems import EvaluatedSystem, Item, batch_of, in_batches

__all__ = ["describe", "harmless_changes", "scores_twice", "zero_gradients"]

Array = NDArray[np.float64]

PROBED = 50
"""Number of clips on which gradients and randomness are checked."""


def describe(bench: Bench) -> dict[str, Any]:
    """Describe the system, its accuracy behind every defence, and the detectors' false alarms."""
    system = bench.system
    plan = system.plan
    judged = system.items[: 4 * bench.config.detect]
    flagged = _flagged(bench.detectors, bench.clean, judged, bench) if bench.detectors else None
    return {
        "model": plan.model,
        "model_id": system.pretrained.model_id,
        "identity": system.identity,
        "task": "CSI-E" if plan.enrol else "CSI-NE",
        "subset": plan.subset,
        "crop_s": plan.crop_s,
        "clips": len(system.items),
        "speakers": len({item.speaker for item in system.items}),
        "rightly_named": int(system.is_correct.sum()),
        "accuracy": _accuracy(bench, system.items),
        "verification": _verification(system) if plan.enrol else None,
        "calibration_clips": len(system.calibrate) if bench.detectors else 0,
        "flagged": flagged,
    }


def harmless_changes(bench: Bench) -> list[dict[str, Any]]:
    """Measure accuracy and false alarms on the first test clips after harmless changes."""
    system, seed = bench.system, bench.config.seed
    items = system.items[: bench.config.controls]
    rate = system.pretrained.card.sample_rate_hz
    rows = []
    for control in CONTROLS if items else ():
        clips = changed_clips(control, items, sample_rate_hz=rate, seed=seed)
        changed = [replace(item, samples=clip) for item, clip in zip(items, clips, strict=True)]
        flagged = None
        if bench.detectors:
            flagged = _flagged(bench.detectors, bench.detectors.rows(clips), changed, bench)
        rows.append(
            {
                "system": system.name,
                "control": control.name,
                "clips": len(items),
                "accuracy": _accuracy(bench, changed),
                "flagged": flagged,
            }
        )
    return rows


def zero_gradients(system: EvaluatedSystem) -> NDArray[np.bool_]:
    """Return for which of the first clips the gradient of the loss is zero everywhere."""
    zero = []
    for part in in_batches(system.items[:PROBED], 10):
        batch = batch_of(part)
        x = batch.x.clone().requires_grad_(True)
        logits = system.model.logits(system.model.scores(batch.with_x(x)))
        loss = torch.nn.functional.cross_entropy(
            logits.double(), system.labels_of(part), reduction="sum"
        )
        (gradient,) = torch.autograd.grad(loss, x)
        zero.append(gradient.abs().flatten(1).amax(dim=1) == 0)
    return np.asarray(torch.cat(zero).numpy())


def scores_twice(system: EvaluatedSystem) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Score the first clips twice."""
    items = system.items[:PROBED]
    first, second = (system.scores(items).double().numpy() for _ in range(2))
    return first, second


def _accuracy(bench: Bench, items: Sequence[Item]) -> dict[str, dict[str, float]]:
    """Return the accuracy on clips, by defence."""
    labels = bench.system.labels_of(items).numpy()
    speakers = [item.speaker for item in items]
    accuracy = {}
    for name, purifier in bench.defences.items():
        batches = (batch_of(part) for part in in_batches(items))
        named = ask(
            bench.system.model, purifier, batches, level="raw", seed=bench.config.seed
        ).named
        accuracy[name] = bench.share(named == labels, speakers)
    return accuracy


def _flagged(
    detectors: BenchDetectors, rows: Mapping[str, Array], items: Iterable[Item], bench: Bench
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the share of clips flagged, by detector and false-positive rate."""
    speakers = [item.speaker for item in items]
    return {
        judge.name: {
            f"at_{rate:g}": bench.share(judge.flagged(rows[judge.measure], rate), speakers)
            for rate in RATES
        }
        for judge in detectors.judges
    }


def _verification(system: EvaluatedSystem) -> dict[str, float]:
    """Verify every clip against every enrolled speaker; return equal error rate and minDCF."""
    scores = system.scores(system.items).double().numpy()
    labels = system.labels_of(system.items).numpy()
    own = np.arange(scores.shape[1])[None] == labels[:, None]
    return {
        "eer": equal_error_rate(scores[own], scores[~own]).rate,
        "min_dcf_0.01": min_dcf(scores[own], scores[~own]),
    }
