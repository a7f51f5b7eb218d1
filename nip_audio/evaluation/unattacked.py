"""Measure a system without an attack: accuracy, false alarms, and harmless changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nip_audio.core.metrics import equal_error_rate, min_dcf
from nip_audio.evaluation.adversarial_sets import AdversarialSet
from nip_audio.evaluation.bench import Bench
from nip_audio.evaluation.bench_detectors import BenchDetectors
from nip_audio.evaluation.controls import CONTROLS, changed_clips
from nip_audio.evaluation.defences import NO_DEFENCE, ask
from nip_audio.evaluation.detector_judges import RATES
from nip_audio.evaluation.systems import EvaluatedSystem, Item, batch_of, in_batches

__all__ = [
    "correct_clips",
    "describe",
    "harmless_changes",
    "scores_twice",
    "shares_before",
    "zero_gradients",
]

Array = NDArray[np.float64]
Hits = NDArray[np.bool_]

PROBED = 50
"""Number of clips on which gradients and randomness are checked."""


def describe(bench: Bench, correct: Mapping[str, Hits]) -> dict[str, Any]:
    """Describe the system, its accuracy behind every defence, and the detectors' false alarms.

    Args:
        bench: System with its defences and detectors.
        correct: What ``correct_clips`` returned for its items.
    """
    system = bench.system
    plan, speakers = system.plan, [item.speaker for item in system.items]
    judged = system.items[: 4 * bench.config.detect]
    flagged = _flagged(bench.detectors, bench.clean, judged, bench) if bench.detectors else None
    return {
        "model": system.pretrained.card.name,
        "model_id": system.pretrained.model_id,
        "identity": system.identity,
        "task": "CSI-E" if plan.enrol else "CSI-NE",
        **({"back_end": plan.back_end} if plan.enrol else {}),
        "subset": plan.subset,
        "crop_s": plan.crop_s,
        "clips": len(system.items),
        "speakers": len(set(speakers)),
        "classes": len(system.model.labels),
        "enrolled": system.enrolled,
        "training_listed": bool(system.pretrained.card.seen),
        "rightly_named": int(system.is_correct.sum()),
        "accuracy": {name: bench.share(hits, speakers) for name, hits in correct.items()},
        "verification": _verification(system) if plan.enrol else None,
        "sound": bench.sound.clean() if bench.config.sound else None,
        "calibration_clips": len(system.calibrate) if bench.detectors else 0,
        "flagged": flagged,
    }


def correct_clips(bench: Bench, items: Sequence[Item]) -> dict[str, Hits]:
    """Return which clips, unattacked, are classified correctly, (items,), by defence."""
    labels = bench.system.labels_of(items).numpy()
    correct = {}
    for name, defence in bench.defences.items():
        batches = (batch_of(part) for part in in_batches(items))
        model, seed = bench.system.model, bench.config.seed
        correct[name] = ask(model, defence, batches, level="raw", seed=seed).named == labels
    return correct


def shares_before(
    bench: Bench, cell: Mapping[str, Any], examples: AdversarialSet, correct: Mapping[str, Hits]
) -> dict[str, dict[str, float]]:
    """Return the share of a cell's clips that are classified correctly without its attack.

    An attack on a defended system also "fools" the clips that the defence alone spoils.

    Args:
        bench: System with its defences.
        cell: The judged cell.
        examples: Its examples.
        correct: What ``correct_clips`` returned for the system's items.

    Returns:
        The shares by defence: those that the cell tests, or the one that its attacker knows.
    """
    numbers = {item.id: number for number, item in enumerate(bench.system.items)}
    rows = [numbers[example.id] for example in examples.examples]
    speakers = [example.speaker for example in examples.examples]
    names = [cell["attacked_defence"], *(row["defence"] for row in cell["defences"])]
    return {
        name: bench.share(correct[name][rows], speakers)
        for name in names
        if name in correct and name != NO_DEFENCE
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
                "accuracy": {
                    name: bench.share(hits, [item.speaker for item in changed])
                    for name, hits in correct_clips(bench, changed).items()
                },
                "flagged": flagged,
            }
        )
    return rows


def zero_gradients(system: EvaluatedSystem) -> Hits | None:
    """Return for which of the first clips the gradient of the loss is zero everywhere.

    A model that runs as a black box has no gradient to look at: None.
    """
    zero = []
    for part in in_batches(system.items[:PROBED], 10):
        batch = batch_of(part)
        x = batch.x.clone().requires_grad_(True)
        logits = system.model.logits(system.model.scores(batch.with_x(x)))
        loss = torch.nn.functional.cross_entropy(
            logits.double(), system.labels_of(part), reduction="sum"
        )
        if not loss.requires_grad:
            return None
        (gradient,) = torch.autograd.grad(loss, x)
        zero.append(gradient.abs().flatten(1).amax(dim=1) == 0)
    return np.asarray(torch.cat(zero).numpy())


def scores_twice(system: EvaluatedSystem) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Score the first clips twice."""
    items = system.items[:PROBED]
    first, second = (system.scores(items).double().numpy() for _ in range(2))
    return first, second


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
