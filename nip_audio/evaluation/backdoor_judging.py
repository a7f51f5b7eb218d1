"""Who finds the poison in a set: NCCR in two forms, two baselines, and a control without noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nip_audio.core.adapter import Batch
from nip_audio.core.metrics import auroc, bootstrap
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.nccr import Noise
from nip_audio.core.neuron_changes import NeuronChanges, measure_neuron_changes
from nip_audio.detectors.backdoor import BackdoorGroups, PublishedClusters
from nip_audio.evaluation.backdoor_baselines import activation_clustering, strip
from nip_audio.evaluation.poisoning import PoisonedClips
from nip_audio.evaluation.seeds import seed_of

__all__ = ["JudgingPlan", "f1_of", "judge_set", "measure_set"]

Mask = NDArray[np.bool_]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class JudgingPlan:
    """What is measured.

    Attributes:
        layers: Whose neurons the grouped detector sees.
        scalar_layer: Whose scalar NCCR the published form and the pictures see.
        small: Standard deviation of the small noise, on spectrograms in [0, 1].
        destroying: Of the noise that destroys them.
        draws: Of each noise.
        strip_clips: Most poisoned and most clean clips that STRIP, which is slow, is shown.
        strip_overlays: Laid over each of them.
    """

    layers: tuple[str, ...] = ("layers.0", "layers.2")
    scalar_layer: str = "pool"
    small: float = 0.03
    destroying: float = 1.0
    draws: int = 2
    strip_clips: tuple[int, int] = (100, 400)
    strip_overlays: int = 10

    @property
    def noises(self) -> tuple[Noise, Noise]:
        """The small noise and the destroying one."""
        return Noise("gaussian", "input", self.small), Noise("gaussian", "input", self.destroying)


def measure_set(
    model: InstrumentedModel, samples: Tensor, plan: JudgingPlan, *, seed: int
) -> list[NeuronChanges]:
    """Measure clips (n, N), each with noise of its own seed."""
    layers = dict.fromkeys((*plan.layers, plan.scalar_layer))
    return [
        measure_neuron_changes(
            model,
            Batch(clip[None]),
            layers=tuple(layers),
            noises=plan.noises,
            draws=plan.draws,
            generator=torch.Generator().manual_seed(seed_of(seed, number)),
        )
        for number, clip in enumerate(samples)
    ]


def f1_of(accused: Mask, poisoned: Mask, *, seed: int = 0) -> dict[str, Any]:
    """F1 with its 95 % interval by bootstrap over files, precision, recall and counts.

    Without a poisoned file F1 has no value: the count of the accused is what there is.
    """
    hits, named, there = (
        int((accused & poisoned).sum()),
        int(accused.sum()),
        int(poisoned.sum()),
    )
    counts = {"accused": named, "found": hits, "poisoned": there, "files": len(poisoned)}
    if there == 0:
        return counts

    def f1(rows: NDArray[np.intp]) -> float:
        a, p = accused[rows], poisoned[rows]
        total = int(a.sum() + p.sum())
        return 2 * int((a & p).sum()) / total if total else 0.0

    interval = bootstrap(f1, len(poisoned), seed=seed)
    return counts | {
        "f1": interval.to_json(),
        "precision": hits / named if named else None,
        "recall": hits / there,
    }


def judge_set(
    model: InstrumentedModel,
    judged: PoisonedClips,
    plan: JudgingPlan,
    *,
    seed: int,
    clean_inputs: Tensor | None = None,
    clustering: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> dict[str, Any]:
    """Judge a set with everything; only the bookkeeping knows which files are poisoned.

    Args:
        model: That was trained on the set, or that the set is for.
        judged: The set.
        plan: What is measured.
        seed: Of the noise.
        clean_inputs: (m, F, T) clean model inputs for STRIP; None leaves STRIP out.
        clustering: Whether activation clustering is asked; it needs the labels trained on.
        progress: Told what is done.
    """
    poisoned = judged.poisoned.numpy()
    changes = measure_set(model, judged.clips.samples, plan, seed=seed)
    progress("measured")
    embeddings = torch.stack([c.embedding for c in changes])
    with torch.no_grad():
        named = model.score_embeddings(embeddings).argmax(dim=1)
    groups = [model.labels[int(i)] for i in named]
    target = model.labels[judged.target]
    rates = torch.stack([c.rates[plan.scalar_layer] for c in changes]).double().numpy()
    vectors = np.stack([_vector(c, plan, noisy=True) for c in changes])
    plain = np.stack([_vector(c, plan, noisy=False) for c in changes])
    found: dict[str, Any] = {
        "named as target": int((poisoned & (named.numpy() == judged.target)).sum()),
        "rates": _spread(rates, poisoned),
        "NCCR, grouped": _grouped(vectors, groups, poisoned, target),
        "activations, grouped": _grouped(plain, groups, poisoned, target),
        "NCCR, published": _published(rates[:, 1:], poisoned),
    }
    progress("grouped")
    generator = torch.Generator().manual_seed(seed_of("baselines", seed))
    if clustering:
        for analysis in ("smaller", "silhouette-scores"):
            accused, clusters = activation_clustering(
                embeddings,
                judged.clips.labels,
                len(model.labels),
                analysis=analysis,
                generator=generator,
            )
            found[f"activation clustering, {analysis}"] = f1_of(accused, poisoned)
        if poisoned.any():
            own = np.flatnonzero(judged.clips.labels.numpy() == judged.target)
            told = [_mask(own[clusters[judged.target] == k], len(poisoned)) for k in (0, 1)]
            best = max(told, key=lambda a: f1_of(a, poisoned)["f1"]["value"])
            found["activation clustering, told label and cluster"] = f1_of(best, poisoned)
    if clean_inputs is not None:
        found["STRIP"] = _strip(model, judged, clean_inputs, plan, generator)
    return found


def _vector(changes: NeuronChanges, plan: JudgingPlan, *, noisy: bool) -> Array:
    """What the grouped detector sees of a clip: changes under the destroying noise, or F(x)."""
    if noisy:
        parts = [changes.neurons[layer][1] for layer in plan.layers]
    else:
        parts = [
            torch.nn.functional.normalize(changes.outputs[layer], dim=0) for layer in plan.layers
        ]
    return np.asarray(torch.cat(parts).double().numpy())


def _mask(rows: NDArray[np.intp], size: int) -> Mask:
    mask = np.zeros(size, dtype=bool)
    mask[rows] = True
    return mask


def _grouped(vectors: Array, groups: list[str], poisoned: Mask, target: str) -> dict[str, Any]:
    detector = BackdoorGroups().fit(vectors, groups=groups)
    alarms = {finding.name: finding for finding in detector.findings_}
    others = [f.alarm for f in detector.findings_ if f.name != target]
    mine = alarms.get(target)
    return f1_of(detector.accused_, poisoned) | {
        "accused names": sum(f.accused for f in detector.findings_),
        "judged names": len(alarms),
        "alarm of target": None if mine is None else mine.alarm,
        "silhouette of target": None if mine is None else mine.silhouette,
        "highest other alarm": max(others),
    }


def _published(rates: Array, poisoned: Mask) -> dict[str, Any]:
    detector = PublishedClusters().fit(rates)
    found = f1_of(detector.accused_, poisoned) | {"silhouette": detector.silhouette_}
    if poisoned.any():
        sides = [f1_of(m, poisoned) for m in (detector.smaller_, ~detector.smaller_)]
        found["f1 if told the cluster"] = max(s["f1"]["value"] for s in sides)
        area = auroc(rates[poisoned, 0], rates[~poisoned, 0])
        found["auroc of the scalar"] = max(area, 1 - area)
    return found


def _spread(rates: Array, poisoned: Mask) -> Mapping[str, Any]:
    """Quantiles for pictures: of the small and the destroying noise, clean and poisoned."""
    marks = (0.05, 0.25, 0.5, 0.75, 0.95)
    found: dict[str, Any] = {}
    for column, noise in enumerate(("small", "destroying")):
        for name, rows in (("clean", ~poisoned), ("poisoned", poisoned)):
            if rows.any():
                values = np.quantile(rates[rows, column], marks)
                found[f"{noise}, {name}"] = [round(float(v), 5) for v in values]
    return found


def _strip(
    model: InstrumentedModel,
    judged: PoisonedClips,
    clean_inputs: Tensor,
    plan: JudgingPlan,
    generator: torch.Generator,
) -> dict[str, Any]:
    """Show STRIP a random part of the set."""
    order = torch.randperm(len(judged.poisoned), generator=generator)
    bad = order[judged.poisoned[order]][: plan.strip_clips[0]]
    good = order[~judged.poisoned[order]][: plan.strip_clips[1]]
    rows = torch.cat([bad, good])
    with torch.no_grad():
        inputs = model.to_input(Batch(judged.clips.samples[rows])).x
    accused = strip(model, inputs, clean_inputs, overlays=plan.strip_overlays, generator=generator)
    return f1_of(accused, judged.poisoned[rows].numpy())
