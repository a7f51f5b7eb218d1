"""Run an evaluation: make the sets, let every defence judge them, write one results file."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from nip_audio import __version__
from nip_audio.core.state import file_sha256, write_atomic
from nip_audio.errors import InputError, OutputError
from nip_audio.evaluation.adversarial_sets import AdversarialSet, make_set
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
        cells: list[dict[str, Any]] = []
        described, controls, checks, robust = {}, [], [], []
        for name, system in systems.items():
            bench = Bench.build(system, self.config, self.out / "evidence")
            for cell, examples in self.sets(bench, systems, progress):
                cells.append(cell.describe() | bench.judge(cell, examples))
            described[name] = describe(bench)
            controls += harmless_changes(bench)
            probes = [no_zero_gradients(zero_gradients(system))]
            probes.append(no_randomness(*scores_twice(system)))
            for level in dict.fromkeys(c["level"] for c in cells if c["system"] == name):
                found = [*probes, *check_attacks(cells, name, level)]
                checks += [{"system": name, "level": level, **asdict(c)} for c in found]
                robust += robust_accuracies(cells, name, level, found)
        results = {
            **self.provenance(),
            "systems": described,
            "cells": cells,
            "controls": controls,
            "checks": checks,
            "robust": robust,
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

    def sets(
        self, bench: Bench, systems: Mapping[str, EvaluatedSystem], progress: Progress
    ) -> Iterator[tuple[Cell, AdversarialSet]]:
        """Make all sets of a system; those that another process is at come last."""
        system = bench.system
        cells = list(plan_cells(self.config, system.name, bench.defences))
        finished: dict[int, AdversarialSet] = {}
        while len(finished) < len(cells):
            waiting = True
            for number, cell in enumerate(cells):
                if number in finished:
                    continue
                made = self._make(cell, bench, systems, f"{number + 1} of {len(cells)}", progress)
                if made is not None:
                    finished[number] = made
                    waiting = False
            if waiting:
                time.sleep(_WAIT_S)
        return iter((cell, finished[number]) for number, cell in enumerate(cells))

    def _make(
        self,
        cell: Cell,
        bench: Bench,
        systems: Mapping[str, EvaluatedSystem],
        place: str,
        progress: Progress,
    ) -> AdversarialSet | None:
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
        folder = self.out / "sets" / f"{cell.name}-{recipe.key[:12]}"
        count = _Counter(progress, f"{cell.name} ({place})", len(recipe.items))
        return make_set(recipe, folder, progress=count)


class _Counter:
    """Turns the examples of a set into progress."""

    def __init__(self, progress: Progress, name: str, total: int) -> None:
        self.progress, self.name, self.total, self.done = progress, name, total, 0

    def __call__(self, count: int) -> None:
        self.done += count
        self.progress(self.name, self.done, self.total)
