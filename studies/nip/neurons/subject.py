"""Gather what the studies of NIP use: a system, examples that fool it, and pools fitted to it.

NIP is neuron-level inverse perturbation; a pool holds its candidate changes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nip_audio.attacks.registry import Level
from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.io import ReadSettings
from nip_audio.core.adapter import Batch
from nip_audio.core.metrics import bootstrap
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError, TemplateEmptyWarning
from nip_audio.evaluation.bench import Bench
from nip_audio.evaluation.cells import Cell
from nip_audio.evaluation.config import EvaluationConfig
from nip_audio.evaluation.defences import ask
from nip_audio.evaluation.roles import refuse_overlap
from nip_audio.evaluation.runner import Runner
from nip_audio.evaluation.statistics import MIN_SUCCESSES
from nip_audio.evaluation.systems import (
    EvaluatedSystem,
    batch_of,
    build_system,
    role_recordings,
)
from nip_audio.purifiers.base import Defence
from nip_audio.purifiers.nip_pool import NipPool, PoolSettings, Sign
from nip_audio.workflows.clean_data import read_benign
from studies._lib import shares

__all__ = [
    "BATCH",
    "CANDIDATES",
    "FALLBACK_QUORUM",
    "MOST_CANDIDATES",
    "USUAL",
    "Attacked",
    "Hits",
    "Subject",
    "changed",
    "in_parts",
    "mean_of",
    "noise_like",
    "quietly",
    "read_subjects",
    "share_of",
]

BATCH = 32
CLEAN_CLIPS = 200
CANDIDATES, MOST_CANDIDATES = 256, 1024
USUAL = PoolSettings(quorum=0.9)
"""Settings with which `nip-audio fit-purifier --method pool` fits."""

FALLBACK_QUORUM = 0.5

Hits = NDArray[np.bool_]


@dataclass(frozen=True)
class Attacked:
    """The examples of one attack that fool the undefended model, all as model inputs.

    Attributes:
        name: Attack, level and strength.
        attack: Name of the attack in the registry.
        level: What the attack changes: the waveform (``raw``) or the model's input (``input``).
        made: Number of examples that were made.
        x: (B, F, T) examples as read back from files.
        clean: (B, F, T) their clean originals.
        labels: (B,) classes of the originals.
        speakers: Names of the originals' speakers.
    """

    name: str
    attack: str
    level: Level
    made: int
    x: Tensor
    clean: Tensor
    labels: Tensor
    speakers: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        """Return the counts."""
        return {"attack": self.name, "examples": self.made, "fooled": len(self.labels)}


@dataclass(frozen=True, eq=False)
class Subject:
    """One system under study; all clips are model inputs.

    Attributes:
        name: Name of the system.
        model_name: Name of its model.
        model: Model with its head, which takes model inputs.
        model_id: Identity of the model that pools are fitted to.
        layer: Layer whose neurons are studied unless stated otherwise: the pooled one.
        layers: All default taps.
        clean: (B, F, T) unattacked test clips.
        labels: (B,) classes of the test clips.
        speakers: Names of the test clips' speakers.
        crops: (t, F, T) crops of the ``train`` role, which pools are fitted to.
        seen: Content hashes of the recordings that the crops were cut from.
        attacks: Attacks with at least ``MIN_SUCCESSES`` successful examples.
        left_out: Attacks with fewer successful examples, or without a finished set.
        seed: Seed of bootstrap, noise and draws.
    """

    name: str
    model_name: str
    model: InstrumentedModel
    model_id: str
    layer: str
    layers: tuple[str, ...]
    clean: Tensor
    labels: Tensor
    speakers: tuple[str, ...]
    crops: Tensor
    seen: tuple[str, ...]
    attacks: tuple[Attacked, ...]
    left_out: tuple[str, ...]
    seed: int

    def describe(self) -> dict[str, Any]:
        """Return the description of the system for tables."""
        return {
            "model": self.model_name,
            "model_id": self.model_id,
            "layer": self.layer,
            "settings": asdict(self.usual.pool_settings),
            "candidates": CANDIDATES,
            "neurons": self.usual.order.shape[1],
            "classes": len(self.model.labels),
            "clean_clips": len(self.labels),
            "clean_speakers": len(set(self.speakers)),
            "fitted_on": len(self.seen),
            "attacks": [attacked.describe() for attacked in self.attacks],
            "left_out": list(self.left_out),
        }

    def fit(
        self,
        settings: PoolSettings,
        *,
        layer: str | None = None,
        candidates: int = CANDIDATES,
    ) -> NipPool:
        """Fit a pool to the first crops, without a warning if its template is empty."""
        return quietly(
            lambda: NipPool.fit(
                self.model,
                (Batch(part) for part in in_parts(self.crops[:candidates])),
                layer=layer or self.layer,
                model_id=self.model_id,
                settings=settings,
                seen=self.seen,
            )
        )

    def right(self, x: Tensor, labels: Tensor, defence: Defence | None = None) -> Hits:
        """Return which inputs are classified correctly behind a defence, which gets no label.

        Args:
            x: (B, F, T) model inputs.
            labels: (B,) classes of the inputs.
            defence: Defence of the model; None for none.
        """
        batches = (Batch(part) for part in in_parts(x))
        answers = ask(self.model, defence, batches, level="input", seed=self.seed)
        return np.asarray(answers.named == labels.numpy())

    @cached_property
    def usual(self) -> NipPool:
        """Pool of `nip-audio fit-purifier`, with a quorum of half if its template were empty."""
        pool = self.fit(USUAL)
        return pool if len(pool.template) > 0 else changed(pool, quorum=FALLBACK_QUORUM)

    @cached_property
    def large(self) -> NipPool:
        """Pool fitted to all crops."""
        return self.fit(self.usual.pool_settings, candidates=len(self.crops))

    @cached_property
    def crop_classes(self) -> NDArray[np.int64]:
        """Predicted classes of the crops, (t,)."""
        with torch.no_grad():
            parts = [self.model.embed_input(Batch(part)) for part in in_parts(self.crops)]
            return np.asarray(self.model.score_embeddings(torch.cat(parts)).argmax(dim=1))

    @cached_property
    def is_correct(self) -> Hits:
        """Whether the undefended model classifies each clean clip correctly, (B,)."""
        return self.right(self.clean, self.labels)


def read_subjects(config: EvaluationConfig, sets: Path) -> list[Subject]:
    """Read finished sets, and crops of the ``train`` role to fit pools to.

    Args:
        config: Configuration with systems and attacks.
        sets: Folder of the evaluation that made the sets.

    Raises:
        InputError: If a ``train`` recording is a test item, or no set is finished.
    """
    subjects = []
    for plan in config.systems:
        system = build_system(plan, config)
        bench = Bench.build(system, config, sets / "evidence")
        attacks, left_out = [], []
        for _, cell, examples in Runner(config, sets, only_finished=True).sets(
            [bench], lambda cell, done, total: None
        ):
            found = None if examples is None else _fooling(system, cell, examples)
            if found is None or len(found.labels) < MIN_SUCCESSES:
                left_out.append(_name(cell))
            else:
                attacks.append(found)
        if not attacks:
            raise InputError(f"{sets} has no finished set of {plan.name}; make them first")
        items = system.items[:CLEAN_CLIPS]
        crops, seen = _train_crops(system, config)
        subjects.append(
            Subject(
                name=plan.name,
                model_name=plan.model,
                model=system.model,
                model_id=system.pretrained.model_id,
                layer=system.pretrained.card.default_taps[-1],
                layers=tuple(system.pretrained.card.default_taps),
                clean=_input_of(system.model, batch_of(items)),
                labels=system.labels_of(items),
                speakers=tuple(item.speaker for item in items),
                crops=crops,
                seen=seen,
                attacks=tuple(attacks),
                left_out=tuple(left_out),
                seed=config.seed,
            )
        )
    return subjects


def in_parts(x: Tensor) -> Iterator[Tensor]:
    """Split into batches."""
    return (x[i : i + BATCH] for i in range(0, len(x), BATCH))


def quietly(make: Callable[[], NipPool]) -> NipPool:
    """Make a pool without a warning about an empty template, whose size is in every table."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TemplateEmptyWarning)
        return make()


def changed(pool: NipPool, *, sign: Sign | None = None, quorum: float | None = None) -> NipPool:
    """Return a pool with other settings, without a warning about an empty template."""
    return quietly(lambda: pool.with_settings(sign=sign, quorum=quorum))


def share_of(hits: Hits, speakers: Sequence[str], *, seed: int) -> dict[str, float]:
    """Return a share with its 95 % interval, resampling speakers."""
    return shares.share_of(hits, speakers, seed=seed).to_json()


def mean_of(
    values: NDArray[np.floating[Any]] | Hits, speakers: Sequence[str], *, seed: int
) -> dict[str, float]:
    """Return a mean with its 95 % interval, by bootstrap over speakers.

    If all values are equal, the interval is a point and says nothing about uncertainty.
    """
    names, group = np.unique(np.asarray(speakers), return_inverse=True)
    sums, counts = np.bincount(group, weights=values), np.bincount(group)

    def mean(chosen: NDArray[np.intp]) -> float:
        return float(sums[chosen].sum() / counts[chosen].sum())

    return bootstrap(mean, len(names), seed=seed).to_json()


def noise_like(change: Tensor, *, seed: int) -> Tensor:
    """Draw white noise with the energy of each item's change, (B, *S)."""
    drawn = torch.randn(change.shape, generator=torch.Generator().manual_seed(seed))
    scale = change.flatten(1).norm(dim=1) / drawn.flatten(1).norm(dim=1)
    noise: Tensor = drawn * scale.reshape(-1, *[1] * (change.dim() - 1))
    return noise


def _fooling(system: EvaluatedSystem, cell: Cell, examples: Any) -> Attacked:
    """Read a set back, and keep the examples that fool the model."""
    items = {item.id: item for item in system.items}
    originals = [items[e.id] for e in examples.examples]
    values = torch.cat([batch.x for batch in examples.batches()])
    x = values if examples.level == "input" else _input_of(system.model, Batch(values))
    labels = system.labels_of(originals)
    with torch.no_grad():
        embeddings = [system.model.embed_input(Batch(part)) for part in in_parts(x)]
        named = system.model.score_embeddings(torch.cat(embeddings)).argmax(dim=1)
    fooled: Tensor = named != labels
    return Attacked(
        name=_name(cell),
        attack=cell.plan.attack,
        level=examples.level,
        made=len(labels),
        x=x[fooled],
        clean=_input_of(system.model, batch_of(originals))[fooled],
        labels=labels[fooled],
        speakers=tuple(o.speaker for o, hit in zip(originals, fooled, strict=True) if hit),
    )


@torch.no_grad()
def _input_of(model: InstrumentedModel, raw: Batch) -> Tensor:
    return torch.cat([model.to_input(Batch(part)).x for part in in_parts(raw.x)])


def _train_crops(
    system: EvaluatedSystem, config: EvaluationConfig
) -> tuple[Tensor, tuple[str, ...]]:
    """Draw the same crops of the system's ``train`` role as ``fit_pool``."""
    rate = system.pretrained.card.sample_rate_hz
    adapter = WaveformAdapter(ReadSettings(rate, min_duration_s=0.2))
    files = role_recordings(config, system.plan.subset, "train")
    clips = read_benign(files, adapter, crop_s=system.plan.crop_s or None)
    refuse_overlap(clips.contents, (i.content_sha256 for i in system.items), what="pool")
    generator = torch.Generator().manual_seed(0)
    raw = [clips.draw(generator, items=BATCH) for _ in range(MOST_CANDIDATES // BATCH)]
    return torch.cat([_input_of(system.model, batch) for batch in raw]), clips.contents


def _name(cell: Cell) -> str:
    parts = [str(cell.describe()["title"])]
    parts.append({"raw": "waveform", "input": "spectrogram"}[cell.plan.level])
    if cell.eps is not None:
        in_255 = 255 * cell.eps
        whole = cell.plan.level == "input" and abs(in_255 - round(in_255)) < 1e-6
        parts.append(f"ε {round(in_255)}/255" if whole else f"ε {cell.eps:g}")
    return " ".join(parts)
