"""Test NCCR (neuron coverage change rate) as a measure of robustness against alternatives.

Harel-Canada et al. 2020 found that neuron coverage says little about the quality of a test set.
This module therefore asks: does the rank hold for other noises and layers? Do simpler numbers rank
as well? Does NCCR tell which clips of one model are fooled? Can the NCCR of a model be changed
without changing its predictions?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import softmax

from nip_audio.core.metrics import auroc, bootstrap
from nip_audio.errors import InputError
from nip_audio.evaluation.nccr_ranks import agreement
from studies._lib.shares import share_of
from studies.robustness.measured import NOISES, Measured

Array = NDArray[np.float64]
Accuracy = Mapping[str, Mapping[str, float]]

WORST_OF = ("pgd-e2e", "autoattack")
MIN_EACH = 8
"""Smallest number of fooled and of robust clips for which an AUROC is given."""


def fooled_by(
    cells: Sequence[Mapping[str, Any]], system: str, eps: float
) -> tuple[NDArray[np.bool_] | None, list[str]]:
    """Return which clips at least one attack at this ε fools, and the names of the attacks."""
    chosen = [
        cell
        for cell in cells
        if (cell["system"], cell["eps"], cell["level"]) == (system, eps, "raw")
        and cell["attack"] in WORST_OF
    ]
    bits = [np.array([mark == "1" for mark in cell["fooled"]]) for cell in chosen]
    if not bits:
        return None, []
    return np.logical_or.reduce(bits), sorted(cell["attack"] for cell in chosen)


def accuracies(
    results: Mapping[str, Any], measured: Sequence[Measured], *, seed: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """Compute accuracy under attack by ε and system.

    Only clips that a system classifies correctly are attacked, so its accuracy under attack is the
    share of them that withstand the attacks, times its accuracy. The interval covers the share
    only.
    """
    strengths = sorted({c["eps"] for c in results["cells"] if c["attack"] in WORST_OF})
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for eps in strengths:
        for one in measured:
            hits, attacks = fooled_by(results["cells"], one.name, eps)
            if hits is None:
                continue
            right = [
                i.speaker
                for i, ok in zip(one.system.items, one.system.is_correct, strict=True)
                if ok
            ]
            holds = share_of(~hits, right[: len(hits)], seed=seed).to_json()
            clean = results["systems"][one.name]["accuracy"]["no defence"]
            found.setdefault(f"{eps:g}", {})[one.name] = {
                "attacks": attacks,
                "attacked": len(hits),
                "holds": holds,
                "clean": clean,
                **{k: round(clean["value"] * holds[k], 5) for k in ("value", "low", "high")},
            }
    return found


def compare(values: Mapping[str, float], accuracy: Accuracy) -> dict[str, Any] | None:
    """Compare the rank by numbers (lower means more robust) with accuracy; None if there is none.

    ``clear`` counts the pairs of models whose intervals of accuracy under attack do not overlap.
    """
    chosen = {name: values[name] for name in accuracy}
    right = {name: one["value"] for name, one in accuracy.items()}
    try:
        found = asdict(agreement(chosen, right))
    except InputError:
        return None
    clear = [
        (a, b)
        for a, b in combinations(chosen, 2)
        if accuracy[a]["low"] > accuracy[b]["high"] or accuracy[b]["low"] > accuracy[a]["high"]
    ]
    kept = sum((chosen[a] - chosen[b]) * (right[a] - right[b]) < 0 for a, b in clear)
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in found.items()}
    return rounded | {"clear": len(clear), "clear_right": kept}


def settings_grid(
    measured: Sequence[Measured], accuracy: Mapping[str, Accuracy]
) -> list[dict[str, Any]]:
    """Compute for every noise and layer the mean NCCR by system, and how well it ranks."""
    rows = []
    for n, noise in enumerate(NOISES):
        for k, layer in enumerate(measured[0].layers):
            means = {one.name: float(one.rates[:, n, k].mean()) for one in measured}
            rows.append(
                {
                    "family": f"{noise.family}@{noise.level}",
                    "scale": round(noise.scale, 5),
                    "layer": layer,
                    "nccr": {name: round(value, 5) for name, value in means.items()},
                    "agreement": {eps: compare(means, by) for eps, by in accuracy.items()},
                }
            )
    return rows


def plainer(
    measured: Sequence[Measured], clean: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """Compute simpler numbers and variants of NCCR by system; lower means more robust for all."""
    found: dict[str, dict[str, float]] = {}
    for one in measured:
        for name, value in (_numbers(one) | {"minus clean accuracy": -clean[one.name]}).items():
            found.setdefault(name, {})[one.name] = round(float(value), 5)
    return found


def _numbers(one: Measured) -> dict[str, float]:
    clean, noisy = one.embeddings, one.noisy
    logits, noisy_logits = one.logits(clean), one.logits(noisy)
    named = logits.argmax(axis=1)
    top = np.sort(logits, axis=1)
    posterior, noisy_posterior = softmax(logits, axis=1), softmax(noisy_logits, axis=2)
    rows = np.arange(len(named))
    change = np.abs(noisy_posterior[rows, :, named] - posterior[rows, named][:, None])
    moved = _length(noisy - clean[:, None])
    return {
        "minus margin of the logits": -(top[:, -1] - top[:, -2]).mean(),
        "minus posterior of the named speaker": -posterior.max(axis=1).mean(),
        "minus length of the last tap": -_length(clean).mean(),
        "change of the last tap, absolute": moved.mean(),
        "change of the logits, absolute": _length(noisy_logits - logits[:, None]).mean(),
        "NCCR of the last tap less its mean over clips": (
            moved.mean(axis=1) / _length(clean - clean.mean(axis=0))
        ).mean(),
        "NCCR of the logits less their mean over speakers": _centred(logits, noisy_logits).mean(),
        "change of the named speaker's posterior": change.mean(),
        "share of draws that name somebody else": (
            noisy_logits.argmax(axis=2) != named[:, None]
        ).mean(),
    }


def _length(vectors: Array) -> Array:
    return np.asarray(np.linalg.norm(vectors, axis=-1))


def _centred(logits: Array, noisy: Array) -> Array:
    clean = logits - logits.mean(axis=1, keepdims=True)
    moved = noisy - noisy.mean(axis=2, keepdims=True) - clean[:, None]
    return np.asarray(_length(moved).mean(axis=1) / _length(clean))


def clip_by_clip(
    one: Measured, cells: Sequence[Mapping[str, Any]], eps: float, *, seed: int
) -> dict[str, Any]:
    """Measure by AUROC whether fooled clips of one model have a higher NCCR, by layer."""
    hits, _ = fooled_by(cells, one.name, eps)
    rows = np.flatnonzero(one.right)[: 0 if hits is None else len(hits)]
    fooled = hits[: len(rows)] if hits is not None else np.zeros(0, dtype=bool)
    row: dict[str, Any] = {
        "system": one.name,
        "eps": eps,
        "fooled": int(fooled.sum()),
        "held": int((~fooled).sum()),
    }
    logits = one.logits(one.embeddings[rows])
    top = np.sort(logits, axis=1)
    candidates = {
        "last tap": one.rates[rows, 0, len(one.layers) - 2],
        "logits": one.rates[rows, 0, len(one.layers) - 1],
        "minus margin": -(top[:, -1] - top[:, -2]),
    }
    for name, values in candidates.items():
        row[name] = None
        if min(row["fooled"], row["held"]) >= MIN_EACH:
            area = partial(_area, values, fooled)
            row[name] = bootstrap(area, len(rows), seed=seed).to_json()
    return row


def _area(values: Array, fooled: NDArray[np.bool_], rows: NDArray[np.intp]) -> float:
    return auroc(values[rows][fooled[rows]], values[rows][~fooled[rows]])


def shifted(weak: Measured, strong: Measured) -> list[dict[str, Any]]:
    """Find constants that give a weak model a lower NCCR than a strong one, with the same outputs.

    A constant added to every neuron of the last tap and removed by the head's bias leaves all
    scores unchanged, and with them all attacks; one added to every logit leaves the posteriors.
    """
    rows = []
    for layer in ("last tap", "logits"):
        values, noisy = weak.embeddings, weak.noisy
        if layer == "logits":
            values, noisy = weak.logits(values), weak.logits(noisy)
        moved = _length(noisy - values[:, None]).mean(axis=1)
        target = float(strong.rates[:, 0, len(strong.layers) - 2 + (layer == "logits")].mean())

        excess = partial(_excess, values, moved, target)
        constant = 0.0
        if excess(0.0) > 0:
            most = 1e4 * float(np.abs(values).max())
            constant = float(brentq(excess, *_bracket(excess, most), xtol=1e-6 * most))
        rows.append(
            {
                "layer": layer,
                "weak": weak.name,
                "strong": strong.name,
                "nccr_weak": round(excess(0.0) + target, 5),
                "nccr_strong": round(target, 5),
                "constant": round(constant, 4),
                "largest_value": round(float(np.abs(values).max()), 4),
            }
        )
    return rows


def _excess(values: Array, moved: Array, target: float, constant: float) -> float:
    return float((moved / _length(values + constant)).mean() - target)


def _bracket(excess: Any, most: float) -> tuple[float, float]:
    """Return the last constant above and the first below; NCCR may rise before it falls."""
    grid = np.concatenate([[0.0], np.geomspace(most * 1e-6, most, 60)])
    above = max(i for i, constant in enumerate(grid) if excess(constant) > 0)
    return float(grid[above]), float(grid[above + 1])
