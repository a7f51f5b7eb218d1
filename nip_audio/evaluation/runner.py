"""Run an evaluation: make the sets, let every defence judge them, write one results file."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nip_audio import __version__
from nip_audio.core.state import file_sha256, write_atomic
from nip_audio.errors import InputError, OutputError
from nip_audio.evaluation.adversarial_sets import AdversarialSet, make_set
from nip_audio.evaluation.cells import Cell, plan_cells, recipe_of
from nip_audio.evaluation.config import EvaluationConfig
from nip_audio.evaluation.defences import applies, decide, make_defences
from nip_audio.evaluation.statistics import MIN_SUCCESSES, proportion
from nip_audio.evaluation.systems import EvaluatedSystem, batch_of, build_system, in_batches
from nip_audio.purifiers.base import Purifier

__all__ = ["RESULTS_NAME", "Progress", "Runner"]

RESULTS_NAME = "results.json"
_WAIT_S = 2.0

Progress = Callable[[str, int, int], None]
"""Called with the name of a cell, examples done and examples to do."""


@dataclass(frozen=True)
class Runner:
    """An evaluation and where it is kept.

    Several processes may work in one folder: each takes cells that no other is at.

    Attributes:
        config: What to evaluate.
        out: Folder; a run that was interrupted goes on there.
    """

    config: EvaluationConfig
    out: Path

    def run(self, *, progress: Progress = lambda cell, done, total: None) -> dict[str, Any]:
        """Compute what is missing and write ``results.json``.

        Returns:
            What was written.

        Raises:
            NipAudioError: If something is wrong with model, data, attack or folder.
        """
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise OutputError(f"{self.out} cannot be written ({err.strerror})") from err
        systems = {plan.name: build_system(plan, self.config) for plan in self.config.systems}
        rows: list[dict[str, Any]] = []
        for system in systems.values():
            defences = self.defences_of(system)
            for cell, examples in self._sets(system, systems, defences, progress):
                rows.append(cell.describe() | self._judge(cell, system, examples, defences))
        results = {
            **self.provenance(),
            "systems": {s.name: self._describe(s) for s in systems.values()},
            "cells": rows,
        }
        text = json.dumps(results, indent=1, allow_nan=False) + "\n"
        write_atomic(self.out / RESULTS_NAME, text.encode(), force=True)
        return results

    def provenance(self) -> dict[str, Any]:
        """Return what the numbers depend on besides models and data."""
        libraries = ("torch", "foolbox", "adversarial-robustness-toolbox")
        return {
            "title": self.config.title,
            "seed": self.config.seed,
            "split_sha256": file_sha256(self.config.split),
            "nip_audio": __version__,
            "versions": {name: version(name) for name in libraries},
            "machine": platform.machine(),
            "threads": torch.get_num_threads(),
        }

    def defences_of(self, system: EvaluatedSystem) -> dict[str, Purifier | None]:
        """Return the purifiers in front of a system; no defence and plain noise always stand."""
        tested = [item.content_sha256 for item in system.items]
        return make_defences(self.config.defences, system.model, tested)

    def _sets(
        self,
        system: EvaluatedSystem,
        systems: Mapping[str, EvaluatedSystem],
        defences: Mapping[str, Purifier | None],
        progress: Progress,
    ) -> Iterator[tuple[Cell, AdversarialSet]]:
        """Make all sets of a system; those that another process is at come last."""
        cells = list(plan_cells(self.config, system.name, defences))
        finished: dict[int, AdversarialSet] = {}
        while len(finished) < len(cells):
            waiting = True
            for number, cell in enumerate(cells):
                if number in finished:
                    continue
                source = systems[cell.plan.source or system.name]
                recipe = recipe_of(
                    cell, system, source, defences[cell.defence], seed=self.config.seed
                )
                if not recipe.items:
                    raise InputError(f"{system.name} names no test clip rightly: nothing to attack")
                folder = self.out / "sets" / f"{cell.name}-{recipe.key[:12]}"
                shown = f"{cell.name} ({number + 1} of {len(cells)})"
                count = _Counter(progress, shown, len(recipe.items))
                made = make_set(recipe, folder, progress=count)
                if made is not None:
                    finished[number] = made
                    waiting = False
            if waiting:
                time.sleep(_WAIT_S)
        return iter((cell, finished[number]) for number, cell in enumerate(cells))

    def _judge(
        self,
        cell: Cell,
        system: EvaluatedSystem,
        examples: AdversarialSet,
        defences: Mapping[str, Purifier | None],
    ) -> dict[str, Any]:
        """Count successes of the attack on what it was made for, and what other defences save."""
        speakers = [e.speaker for e in examples.examples]
        labels = np.array([system.model.labels.index(s) for s in speakers])
        fooled = self._decisions(system, defences[cell.defence], examples) != labels
        rows = []
        for name, purifier in defences.items():
            # a defence that the attacker did not know says nothing of one that he did
            if name == cell.defence or cell.plan.protocol == "adaptive":
                continue
            if not applies(purifier, examples.level):
                continue
            right = self._decisions(system, purifier, examples) == labels
            rows.append(
                {
                    "defence": name,
                    "accuracy_attacked": self._share(right, speakers),
                    "dsr": self._share(right[fooled], np.array(speakers)[fooled].tolist())
                    if fooled.sum() >= MIN_SUCCESSES
                    else None,
                    "right": _bits(right),
                }
            )
        return {
            "set": examples.folder.name,
            "attacked": len(labels),
            "successes": int(fooled.sum()),
            "asr": self._share(fooled, speakers),
            "asr_unwritten": float(np.mean([e.fooled_unwritten for e in examples.examples])),
            "fooled": _bits(fooled),
            "ids_sha256": _hash(e.id for e in examples.examples),
            "norms": {
                name: _spread([getattr(e, name) for e in examples.examples], fooled)
                for name in ("linf", "l2", "l0", "snr_db")
            },
            "queries": float(np.mean([e.queries for e in examples.examples])),
            "gradients": float(np.mean([e.gradients for e in examples.examples])),
            "seconds": float(np.mean([e.seconds for e in examples.examples])),
            "defences": rows,
        }

    def _decisions(
        self, system: EvaluatedSystem, purifier: Purifier | None, examples: AdversarialSet
    ) -> NDArray[np.int64]:
        seed = self.config.seed
        return decide(system.model, purifier, examples.batches(), level=examples.level, seed=seed)

    def _describe(self, system: EvaluatedSystem) -> dict[str, Any]:
        """Accuracy without an attacker, undefended and behind every defence."""
        speakers = [item.speaker for item in system.items]
        labels = system.labels_of(system.items).numpy()
        benign = {}
        for name, purifier in self.defences_of(system).items():
            batches = (batch_of(part) for part in in_batches(system.items))
            named = decide(system.model, purifier, batches, level="raw", seed=self.config.seed)
            benign[name] = self._share(named == labels, speakers)
        return {
            "model": system.plan.model,
            "model_id": system.pretrained.model_id,
            "identity": system.identity,
            "task": "CSI-E" if system.plan.enrol else "CSI-NE",
            "subset": system.plan.subset,
            "crop_s": system.plan.crop_s,
            "clips": len(speakers),
            "speakers": len(set(speakers)),
            "rightly_named": int(system.named_rightly.sum()),
            "accuracy": benign,
        }

    def _share(self, hits: NDArray[np.bool_], speakers: Sequence[str]) -> dict[str, float]:
        return proportion(hits, speakers, seed=self.config.seed).to_json()


class _Counter:
    """Turns the examples of a set into progress."""

    def __init__(self, progress: Progress, name: str, total: int) -> None:
        self.progress, self.name, self.total, self.done = progress, name, total, 0

    def __call__(self, count: int) -> None:
        self.done += count
        self.progress(self.name, self.done, self.total)


def _spread(values: Sequence[float], fooled: NDArray[np.bool_]) -> dict[str, float] | None:
    """Median and quartiles over the examples that fool."""
    chosen = np.asarray(values)[fooled]
    if len(chosen) == 0:
        return None
    low, median, high = np.quantile(chosen, [0.25, 0.5, 0.75])
    return {"median": float(median), "low": float(low), "high": float(high)}


def _bits(hits: NDArray[np.bool_]) -> str:
    """One character an item, for what is compared item by item later."""
    return "".join("1" if hit else "0" for hit in hits)


def _hash(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
