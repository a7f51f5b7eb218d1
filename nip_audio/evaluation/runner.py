"""Run an evaluation: make the adversarial sets, test every defence on them, write the results."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nip_audio import __version__
from nip_audio.core.near import suggest_names
from nip_audio.core.state import file_sha256, make_folder, write_atomic
from nip_audio.errors import AttackError, InputError
from nip_audio.evaluation.adversarial_sets import AdversarialSet, Recipe, finished_set, make_set
from nip_audio.evaluation.bench import Bench
from nip_audio.evaluation.cells import Cell, plan_cells, recipe_of
from nip_audio.evaluation.config import EvaluationConfig
from nip_audio.evaluation.sanity import no_randomness, no_zero_gradients
from nip_audio.evaluation.systems import EvaluatedSystem, build_system
from nip_audio.evaluation.unattacked import (
    correct_clips,
    describe,
    harmless_changes,
    scores_twice,
    shares_before,
    zero_gradients,
)
from nip_audio.evaluation.verdicts import check_adaptive, check_attacks, robust_accuracies

__all__ = ["RESULTS_NAME", "Progress", "Runner"]

RESULTS_NAME = "results.json"
_WAIT_S = 2.0

Progress = Callable[[str, int, int], None]
"""Called with the name of a cell, the number of examples done and the total."""


@dataclass(frozen=True)
class Runner:
    """An evaluation and the folder of its results.

    Several processes may work in one folder; each makes sets that no other process is making.

    Attributes:
        config: Configuration of the evaluation.
        out: Folder of sets and results; an interrupted run continues there.
        only_finished: Whether to make no examples and to report on finished sets only.
        chosen: Names of the systems to evaluate; empty for all. Others are attackers' sources only.
    """

    config: EvaluationConfig
    out: Path
    only_finished: bool = False
    chosen: tuple[str, ...] = ()

    def run(self, *, progress: Progress = lambda cell, done, total: None) -> dict[str, Any]:
        """Compute what is missing and write ``results.json``.

        Returns:
            The results as written.

        Raises:
            NipAudioError: If a model, the data, an attack or the folder cannot be used, or a chosen
                system is unknown.
        """
        chosen = self._chosen()
        make_folder(self.out)
        needed = chosen | self._sources(chosen)
        systems = {
            plan.name: build_system(plan, self.config)
            for plan in self.config.systems
            if plan.name in needed
        }
        benches = [
            Bench.build(system, self.config, self.out / "evidence")
            for name, system in systems.items()
            if name in chosen
        ]
        cells: list[dict[str, Any]] = []
        unfinished: list[dict[str, Any]] = []
        zero = {b.system.name: zero_gradients(b.system) for b in benches}
        self._refuse_blind_attacks(benches, [name for name, found in zero.items() if found is None])
        sets = self.sets(benches, progress, systems)
        correct = {b.system.name: correct_clips(b, b.system.items) for b in benches}
        for bench, cell, examples in sets:
            if examples is None:
                unfinished.append(cell.describe())
                continue
            row = cell.describe() | bench.judge(cell, examples)
            before = shares_before(bench, row, examples, correct[bench.system.name])
            cells.append(row | {"accuracy_before": before})
        results = {
            **self.provenance(),
            "systems": {b.system.name: describe(b, correct[b.system.name]) for b in benches},
            "cells": cells,
            "unfinished": unfinished,
            "controls": [row for bench in benches for row in harmless_changes(bench)],
            **self._verdicts(zero, benches, cells),
        }
        text = json.dumps(results, indent=1, allow_nan=False) + "\n"
        write_atomic(self.out / RESULTS_NAME, text.encode(), force=True)
        return results

    def _chosen(self) -> set[str]:
        """Return the names of the systems to evaluate."""
        known = [plan.name for plan in self.config.systems]
        for name in self.chosen:
            if name not in known:
                raise InputError(f"there is no system {name!r}; {suggest_names(name, known)}")
        return set(self.chosen or known)

    def _sources(self, chosen: AbstractSet[str]) -> set[str]:
        """Return the names of the systems that attackers of the chosen ones know instead."""
        return {
            plan.source
            for plan in self.config.attacks
            if plan.source is not None and (not plan.systems or not chosen.isdisjoint(plan.systems))
        }

    def _refuse_blind_attacks(self, benches: Sequence[Bench], boxes: Sequence[str]) -> None:
        """Refuse attacks by the gradients of a black box, before the others have run for hours."""
        for bench in benches:
            for cell in plan_cells(self.config, bench.system.name, bench.defences):
                source = cell.plan.source or bench.system.name
                if cell.attack.white_box and source in boxes:
                    raise AttackError(
                        f"{cell.plan.attack} on {bench.system.name} needs gradients, and {source} "
                        "gives none, because it runs as a black box; use attacks that need scores "
                        "or decisions alone, such as fakebob, hopskipjump and square, or protocol "
                        "transfer from a system with gradients"
                    )

    def _verdicts(
        self,
        zero: Mapping[str, NDArray[np.bool_] | None],
        benches: Sequence[Bench],
        cells: Sequence[Mapping[str, Any]],
    ) -> dict[str, list[dict[str, Any]]]:
        """Return the sanity checks of the attacks, and the worst cases over strong attacks."""
        checks, robust = [], []
        for bench in benches:
            name = bench.system.name
            probes = [
                no_zero_gradients(zero[name]),
                no_randomness(*scores_twice(bench.system)),
            ]
            for level in dict.fromkeys(c["level"] for c in cells if c["system"] == name):
                found = [*probes, *check_attacks(cells, name, level)]
                known = check_adaptive(cells, name, level)
                listed = [*found, *(check for group in known.values() for check in group)]
                checks += [{"system": name, "level": level, **asdict(c)} for c in listed]
                robust += robust_accuracies(cells, name, level, found, by_defence=known)
        return {"checks": checks, "robust": robust}

    def provenance(self) -> dict[str, Any]:
        """Return what the results depend on besides models and data: versions, seed, threads."""
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

    def sets(
        self,
        benches: Sequence[Bench],
        progress: Progress,
        sources: Mapping[str, EvaluatedSystem] = MappingProxyType({}),
    ) -> list[tuple[Bench, Cell, AdversarialSet | None]]:
        """Make all sets; those that another process is making come last.

        Args:
            benches: Systems under attack.
            progress: Told of every example.
            sources: Other systems that attackers know, by name.

        Returns:
            The sets in the order of systems and configuration; None for an unfinished set if
            ``only_finished``.
        """
        plan = [
            (bench, cell)
            for bench in benches
            for cell in plan_cells(self.config, bench.system.name, bench.defences)
        ]
        systems = {**sources, **{bench.system.name: bench.system for bench in benches}}
        recipes = [self._recipe(bench, cell, systems) for bench, cell in plan]
        folders = [
            self.out / "sets" / f"{cell.name}-{recipe.key[:12]}"
            for (_, cell), recipe in zip(plan, recipes, strict=True)
        ]
        finished: dict[int, AdversarialSet | None] = {}
        while len(finished) < len(plan):
            before = len(finished)
            for number in (n for n in range(len(plan)) if n not in finished):
                recipe, folder = recipes[number], folders[number]
                if self.only_finished:
                    finished[number] = finished_set(recipe, folder)
                    continue
                shown = f"{plan[number][1].name} ({number + 1} of {len(plan)})"
                count = _Counter(progress, shown, len(recipe.items))
                made = make_set(recipe, folder, progress=count)
                if made is not None:
                    finished[number] = made
            if len(finished) == before:
                time.sleep(_WAIT_S)
        return [(*plan[number], finished[number]) for number in range(len(plan))]

    def _recipe(self, bench: Bench, cell: Cell, systems: Mapping[str, EvaluatedSystem]) -> Recipe:
        system = bench.system
        recipe = recipe_of(
            cell,
            system,
            systems[cell.plan.source or system.name],
            bench.defences.get(cell.defence),
            bench.guard if cell.plan.detector else None,
            seed=self.config.seed,
        )
        if not recipe.items:
            raise InputError(
                f"{system.name} classifies no test clip correctly, so there is nothing to attack; "
                "check that its subset of the split holds its own speakers"
            )
        return recipe


class _Counter:
    """Adds up the examples of a set and reports progress."""

    def __init__(self, progress: Progress, name: str, total: int) -> None:
        self.progress, self.name, self.total, self.done = progress, name, total, 0

    def __call__(self, count: int) -> None:
        self.done += count
        self.progress(self.name, self.done, self.total)
