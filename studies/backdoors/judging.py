"""Measure which detectors find the poison in a set: two forms of NCCR, baselines and a control.

NCCR is the neuron coverage change rate; the control uses neuron outputs without noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nip_audio.core.adapter import Batch
from nip_audio.core.metrics import auroc, bootstrap
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.neuron_changes import measure_neuron_changes
from nip_audio.core.noise import Noise
from nip_audio.core.seeds import seed_of
from nip_audio.core.state import State, load_state, save_state
from nip_audio.detectors.backdoor import (
    BackdoorGroups,
    BackdoorJudgement,
    PublishedClusters,
    SetEvidence,
)
from studies.backdoors.baselines import (
    Analysis,
    Clusters,
    activation_clustering,
    exclusionary_reclassification,
    strip,
    strip_of_art,
)
from studies.backdoors.models import predictions
from studies.backdoors.poisoning import Clips, PoisonedClips

__all__ = ["JudgingPlan", "MeasuredSet", "f1_of", "judge_baselines", "judge_set", "measure_set"]

_KIND = "backdoor study measurements"

Mask = NDArray[np.bool_]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class JudgingPlan:
    """Settings of the detectors and of what they measure.

    Attributes:
        layers: Layers whose changes the grouped detector uses.
        output_layers: Layers whose outputs the grouped detector uses.
        scalar_layer: Layer whose scalar NCCR the published form and the plots use.
        small: Standard deviation of the small noise, on spectrograms in [0, 1].
        destroying: Standard deviation of the noise that destroys the spectrograms.
        draws: Draws of each noise.
        strip_clips: Largest numbers of poisoned and of clean clips for STRIP, which is slow.
        strip_overlays: Clean inputs that STRIP blends with each clip; the paper uses 100.
        detector: Grouped detector.
    """

    layers: tuple[str, ...] = ("layers.0", "layers.2")
    output_layers: tuple[str, ...] = ("layers.0", "layers.2")
    scalar_layer: str = "pool"
    small: float = 0.03
    destroying: float = 1.0
    draws: int = 2
    strip_clips: tuple[int, int] = (100, 400)
    strip_overlays: int = 100
    detector: BackdoorGroups = BackdoorGroups()

    @property
    def noises(self) -> tuple[Noise, Noise]:
        """Small noise and destroying noise, in this order."""
        return Noise("gaussian", "input", self.small), Noise("gaussian", "input", self.destroying)

    @property
    def measuring(self) -> dict[str, Any]:
        """Settings that a ``MeasuredSet`` depends on, besides model, clips and seed."""
        judging = ("strip_clips", "strip_overlays", "detector")
        return {name: value for name, value in vars(self).items() if name not in judging}

    @property
    def asking(self) -> dict[str, Any]:
        """Settings that the baselines' verdicts depend on, besides a ``MeasuredSet`` and a seed."""
        return self.measuring | {"strip": [self.strip_clips, self.strip_overlays]}


@dataclass(frozen=True)
class MeasuredSet:
    """Measurements of a set for the detectors; nothing in them tells which files are poisoned.

    Attributes:
        vectors: (n, F) changes of the layers' neurons under the destroying noise.
        outputs: (n, G) neuron outputs without noise, each layer scaled to unit length.
        rates: (n, noises) scalar NCCR at the scalar layer, with the destroying noise last.
        embeddings: (n, D) embeddings.
    """

    vectors: Tensor
    outputs: Tensor
    rates: Tensor
    embeddings: Tensor

    @staticmethod
    def kept(path: Path, identity: str, measure: Callable[[], MeasuredSet]) -> MeasuredSet:
        """Read kept measurements, or measure and keep them.

        Raises:
            StateError: If the file holds measurements of something else.
        """
        if not path.exists():
            measure().save(path, identity)
        return MeasuredSet.load(path, identity)

    def save(self, path: Path, identity: str) -> None:
        """Write the measurements, with the identity of what they depend on."""
        save_state(path, State(_KIND, identity, vars(self), {}))

    @staticmethod
    def load(path: Path, identity: str) -> MeasuredSet:
        """Read measurements, and refuse those with another identity."""
        return MeasuredSet(**load_state(path, kind=_KIND, model_id=identity).tensors)


def measure_set(
    model: InstrumentedModel, samples: Tensor, plan: JudgingPlan, *, seed: int, small: bool = True
) -> MeasuredSet:
    """Measure clips, each with noise of its own seed.

    Args:
        model: Model that may have a backdoor.
        samples: (n, N) clips.
        plan: Settings of the measurements.
        seed: Seed of the noise generator.
        small: Whether to measure the small noise too, which only the plots need.
    """
    layers = tuple(dict.fromkeys((*plan.layers, *plan.output_layers, plan.scalar_layer)))
    found = []
    for number, clip in enumerate(samples):
        changes = measure_neuron_changes(
            model,
            Batch(clip[None]),
            layers=layers,
            noises=plan.noises if small else plan.noises[1:],
            draws=plan.draws,
            generator=torch.Generator().manual_seed(seed_of(seed, number)),
        )
        found.append(
            (
                torch.cat([changes.neurons[layer][-1] for layer in plan.layers]),
                changes.unit_outputs(plan.output_layers),
                changes.rates[plan.scalar_layer],
                changes.embedding,
            )
        )
    vectors, outputs, rates, embeddings = (torch.stack(part) for part in zip(*found, strict=True))
    return MeasuredSet(vectors, outputs, rates, embeddings)


def f1_of(accused: Mask, poisoned: Mask, *, seed: int = 0) -> dict[str, Any]:
    """Compute F1 with its 95 % interval by bootstrap over files, precision, recall and counts.

    Without a poisoned file F1 is undefined, and only the number of flagged files is returned.
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
    model: InstrumentedModel, judged: PoisonedClips, measured: MeasuredSet, plan: JudgingPlan
) -> dict[str, Any]:
    """Judge a set by NCCR; only the scoring of the verdicts knows which files are poisoned."""
    poisoned = judged.poisoned.numpy()
    with torch.no_grad():
        best = model.score_embeddings(measured.embeddings).topk(2, dim=1)
    named = best.indices[:, 0].numpy()
    labels = np.array(model.labels)
    evidence = SetEvidence(
        predictions=labels[named],
        second_predictions=labels[best.indices[:, 1].numpy()],
        margins=(best.values[:, 0] - best.values[:, 1]).double().numpy(),
        changes=measured.vectors.double().numpy(),
        outputs=measured.outputs.double().numpy(),
    )
    # a clean set has no target, so every label counts as another one
    target = model.labels[judged.target] if poisoned.any() else None

    def grouped(known: SetEvidence) -> dict[str, Any]:
        return _found(plan.detector.judge(known), poisoned, target)

    rates = measured.rates.double().numpy()
    return {
        "named as target": int((poisoned & (named == judged.target)).sum()),
        "rates": _spread(rates, poisoned),
        "NCCR, grouped": grouped(evidence),
        "changes, grouped": grouped(replace(evidence, outputs=evidence.changes)),
        "activations, grouped": grouped(replace(evidence, changes=evidence.outputs)),
        "NCCR, published": _published(rates[:, -1:], poisoned),
    }


def judge_baselines(
    model: InstrumentedModel,
    judged: PoisonedClips,
    embeddings: Tensor,
    clean_inputs: Tensor,
    plan: JudgingPlan,
    *,
    train: Callable[[Clips], InstrumentedModel],
    seed: int,
) -> dict[str, Any]:
    """Judge a training set by activation clustering and STRIP, as published and in ART's versions.

    Args:
        model: Model that was trained on the set.
        judged: Training set.
        embeddings: (n, D) embeddings of its clips.
        clean_inputs: (m, F, T) clean model inputs, which STRIP needs.
        plan: Settings, among them how many clips STRIP gets.
        train: Function that trains another model on a part of the set.
        seed: Seed of all baselines.
    """
    poisoned = judged.poisoned.numpy()
    generator = torch.Generator().manual_seed(seed_of("baselines", seed))
    found: dict[str, Any] = {}
    clusters: dict[Analysis, Clusters] = {}
    for analysis in get_args(Analysis):
        accused, clusters[analysis] = activation_clustering(
            embeddings,
            judged.clips.labels,
            len(model.labels),
            analysis=analysis,
            generator=generator,
        )
        found[f"activation clustering, {analysis}"] = f1_of(accused, poisoned)

    def retrained(kept: Mask) -> Tensor:
        rows = torch.from_numpy(kept)
        clips = judged.clips
        part = replace(clips, samples=clips.samples[rows], labels=clips.labels[rows])
        return predictions(train(part), clips.samples)

    accused = exclusionary_reclassification(clusters["silhouette"], judged.clips.labels, retrained)
    found["activation clustering, reclassification"] = f1_of(accused, poisoned)
    if poisoned.any():
        own = np.flatnonzero(judged.clips.labels.numpy() == judged.target)
        split = clusters["silhouette"][judged.target]
        told = [_mask(own[split == k], len(poisoned)) for k in (0, 1)]
        best = max(told, key=lambda a: f1_of(a, poisoned)["f1"]["value"])
        found["activation clustering, told label and cluster"] = f1_of(best, poisoned)
    return found | _strip(model, judged, clean_inputs, plan, generator)


def _mask(rows: NDArray[np.intp], size: int) -> Mask:
    mask = np.zeros(size, dtype=bool)
    mask[rows] = True
    return mask


def _found(judgement: BackdoorJudgement, poisoned: Mask, target: str | None) -> dict[str, Any]:
    findings = {finding.name: finding for finding in judgement.findings}
    others = [f for f in judgement.findings if f.name != target]
    mine = None if target is None else findings.get(target)
    return f1_of(judgement.accused, poisoned) | {
        "accused names": sum(f.accused for f in judgement.findings),
        "judged names": len(findings),
        "alarm of target": None if mine is None else mine.alarm,
        "sides of target": None if mine is None else [mine.unlikeness, mine.other_unlikeness],
        "highest other alarm": max(f.alarm for f in others),
        "score of target": None if mine is None else mine.score,
        "highest other score": max(f.score or 0.0 for f in others),
        "highest score": max(f.score or 0.0 for f in judgement.findings),
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
    """Return quantiles for plots: of clean and poisoned clips, under small and destroying noise."""
    marks = (0.05, 0.25, 0.5, 0.75, 0.95)
    found: dict[str, Any] = {}
    for column, noise in enumerate(("small", "destroying")[-rates.shape[1] :]):
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
    """Judge a random part of the set by both forms of STRIP."""
    order = torch.randperm(len(judged.poisoned), generator=generator)
    bad = order[judged.poisoned[order]][: plan.strip_clips[0]]
    good = order[~judged.poisoned[order]][: plan.strip_clips[1]]
    rows = torch.cat([bad, good])
    with torch.no_grad():
        inputs = model.to_input(Batch(judged.clips.samples[rows])).x
    forms: dict[str, Callable[..., Mask]] = {"STRIP": strip, "STRIP, ART's entropy": strip_of_art}
    return {
        name: f1_of(
            form(model, inputs, clean_inputs, overlays=plan.strip_overlays, generator=generator),
            judged.poisoned[rows].numpy(),
        )
        for name, form in forms.items()
    }
