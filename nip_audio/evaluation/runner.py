"""Run an evaluation: make the sets, let every defence judge them, write one results file."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from nip_audio import __version__
from nip_audio.core.state import file_sha256, make_folder, write_atomic
from nip_audio.errors import InputError
from nip_audio.evaluation.adversarial_sets import AdversarialSet, Recipe, finished_set, make_set
from nip_audio.evaluation.bench import Bench
from nip_audio.evaluation.cells import Cell, plan_cells, recipe_of
from nip_audio.evaluation.config import EvaluationConfig
from nip_audio.evaluation.sanity import no_randomness, no_zero_gradients
from nip_audio.evaluation.systems import EvaluatedSystem, build_system
from nip_audio.evaluation.unattacked import (
    describe,
    harmless_changes,
    scores_twice,
    zero_gradients,
)
from nip_audio.evaluation.verdicts import check_attacks, robust_accuracies

__all__ = ["RESULTS_NAME", "Progress", "Runner"]

RESULTS_NAME = "results.json"
_WAIT_S = 2.0

Progress = Callable[[str, int, int], None]
"""Called with the name of a cell, examples done and examples to do."""


@dataclass(frozen=True)
class Runner:
    """An evaluation and where it is kept.

    Several processes may work in one folder: each takes sets that no other is at.

    Attributes:
        config: What to evaluate.
        out: Folder; a run that was interrupted goes on there.
        only_finished: Make nothing: report on the sets that are finished.
    """

    config: EvaluationConfig
    out: Path
    only_finished: bool = False

    def run(self, *, progress: Progress = lambda cell, done, total: None) -> dict[str, Any]:
        """Compute what is missing and write ``results.json``.

        Returns:
            What was written.

        Raises:
            NipAudioError: If something is wrong with model, data, attack or folder.
        """
        make_folder(self.out)
        systems = {plan.name: build_system(plan, self.config) for plan in self.config.systems}
        benches = [Bench.build(s, self.config, self.out / "evidence") for s in systems.values()]
        cells: list[dict[str, Any]] = []
        unfinished: list[dict[str, Any]] = []
        for bench, cell, examples in self.sets(benches, progress):
            if examples is None:
                unfinished.append(cell.describe())
            else:
                cells.append(cell.describe() | bench.judge(cell, examples))
        results = {
            **self.provenance(),
            "systems": {bench.system.name: describe(bench) for bench in benches},
            "cells": cells,
            "unfinished": unfinished,
            "controls": [row for bench in benches for row in harmless_changes(bench)],
            **self._verdicts(benches, cells),
        }
        text = json.dumps(results, indent=1, allow_nan=False) + "\n"
        write_atomic(self.out / RESULTS_NAME, text.encode(), force=True)
        return results

    def _verdicts(
        self, benches: Sequence[Bench], cells: Sequence[Mapping[str, Any]]
    ) -> dict[str, list[dict[str, Any]]]:
        """Whether the attacks are sound, and the worst cases over strong ones."""
        checks, robust = [], []
        for bench in benches:
            name = bench.system.name
            probes = [
                no_zero_gradients(zero_gradients(bench.system)),
                no_randomness(*scores_twice(bench.system)),
            ]
            for level in dict.fromkeys(c["level"] for c in cells if c["system"] == name):
                found = [*probes, *check_attacks(cells, name, level)]
                checks += [{"system": name, "level": level, **asdict(c)} for c in found]
                robust += robust_accuracies(cells, name, level, found)
        return {"checks": checks, "robust": robust}

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

    def sets(
        self, benches: Sequence[Bench], progress: Progress
    ) -> list[tuple[Bench, Cell, AdversarialSet | None]]:
        """Make all sets; those that another process is at come last.

        Returns:
            In the order of systems and configuration; None is a set that is not finished, where
            nothing is to be made.
        """
        plan = [
            (bench, cell)
            for bench in benches
            for cell in plan_cells(self.config, bench.system.name, bench.defences)
        ]
        systems = {bench.system.name: bench.system for bench in benches}
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
            raise InputError(f"{system.name} names no test clip rightly: nothing to attack")
        return recipe


class _Counter:
    """Turns the examples of a set into progress."""

    def __init__(self, progress: Progress, name: str, total: int) -> None:
        self.progress, self.name, self.total, self.done = progress, name, total, 0

    def __call__(self, count: int) -> None:
        self.done += count
        self.progress(self.name, self.done, self.total)
