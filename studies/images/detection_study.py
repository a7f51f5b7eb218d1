"""Compare NCCR (neuron coverage change rate) detectors with baselines on attacked images.

Detectors, baselines and intervals are those of the audio study, with two differences. Images are
independent of each other, so that folds and bootstrap resample images instead of speakers; and
perceptrons are also trained on one family of attacks each, as in the papers' tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import make_pipeline
from torch import Tensor

from nip_audio.core.nccr import NccrConfig
from nip_audio.detectors.base import Measure
from nip_audio.detectors.baselines.attack_cost import AttackCost
from nip_audio.detectors.baselines.dissector import Dissector
from nip_audio.detectors.baselines.model_mutation import LabelChangeRate
from nip_audio.detectors.baselines.score_change import ScoreChange
from nip_audio.detectors.density import CleanDensity
from nip_audio.detectors.nccr_measure import NccrMeasure, signed_entries
from nip_audio.detectors.rates import LogRates
from nip_audio.evaluation.detector_judges import (
    RATES,
    Known,
    RowJudge,
    clean_judge,
    published_judge,
    trained_judge,
)
from nip_audio.evaluation.measured import RowBank
from nip_audio.evaluation.paired_auroc import Scored, mean_auroc
from nip_audio.evaluation.statistics import proportion
from studies.images.systems import ImageAttackPlan, ImageSystem

__all__ = ["CLEAN_ONLY", "COMBINE", "ImageDetection", "image_baselines"]

Array = NDArray[np.float64]

CLEAN_ONLY = "clean only"
COMBINE = "Combine"


def image_baselines(
    layers: Sequence[str], config: NccrConfig, *, attack_step: float
) -> tuple[Measure, ...]:
    """Return the NCCR paper's three baselines for images and the score change, not fitted."""
    return (
        LabelChangeRate(),
        Dissector(layers),
        AttackCost(step=attack_step),
        ScoreChange(config),
    )


@dataclass(frozen=True)
class ImageDetection:
    """Detectors of one model, fitted on ``calibrate``, judging ``test``.

    Attributes:
        system: Model and its roles.
        bank: Measures images and keeps the rows.
        config: Settings of NCCR.
        own: Attacks that the defender makes on ``calibrate``, by family.
        attack_step: Step size of the baseline that attacks.
        clean: Largest number of unattacked ``test`` images that NCCR judges.
        baseline_clean: Largest number of unattacked ``test`` images that the baselines judge.
        baseline_examples: Examples of each attack that the baselines judge.
        baseline_fit: Number of ``calibrate`` images, taken from the end, to fit the baselines on.
        rounds: Number of bootstrap samples.
        progress: Called with a description of each step.
    """

    system: ImageSystem
    bank: RowBank
    config: NccrConfig
    own: Mapping[str, Sequence[ImageAttackPlan]]
    attack_step: float
    clean: int = 600
    baseline_clean: int = 200
    baseline_examples: int = 60
    baseline_fit: int = 300
    rounds: int = 300
    progress: Callable[[str], None] = lambda what: None

    @property
    def measure(self) -> NccrMeasure:
        """Measure of NCCR."""
        return NccrMeasure(self.config)

    def judges(self) -> list[RowJudge]:
        """Fit all detectors on NCCR's rows: on clean images only, on each family, and on all."""
        clean = self._known(self.system.calibrate.pixels[: self.clean], "c")
        signed = signed_entries(self.config, head=True)
        density = make_pipeline(LogRates(signed=signed), CleanDensity())
        judges = [clean_judge(CLEAN_ONLY, self.measure.name, clean, density)]
        families = {family: self._own_rows(plans) for family, plans in self.own.items()}
        together = None
        for rows in families.values():
            together = rows if together is None else together + rows
        sets = {**families, COMBINE: together} if together is not None else {}
        for name, rows in sets.items():
            knows = f"own {', '.join(families)}" if name == COMBINE else f"own {name}"
            judge = trained_judge(name, self.measure.name, clean, rows, signed=signed, knows=knows)
            judges.append(judge)
        return judges

    def results(self, plans: Sequence[ImageAttackPlan]) -> dict[str, Any]:
        """Judge attacked images of the ``test`` role."""
        judges = self.judges()
        tested = self.system.test.pixels[: self.clean]
        right = self.system.named(tested) == self.system.test.labels[: self.clean]
        base = self._rows(tested)
        owners = tuple(f"t{i}" for i in range(len(tested)))
        found: dict[str, Any] = {
            "calibrate": min(self.clean, len(self.system.calibrate)),
            "clean": len(tested),
            "named_rightly": float(right.float().mean()),
            "config": self.config.to_json(),
            "passes": self.measure.passes,
            "judges": {judge.name: judge.knows for judge in judges},
            "false_positives": {
                j.name: {f"{r:g}": self._flagged(j, base, owners, r) for r in RATES} for j in judges
            },
        }
        cells, kept = [], []
        for plan in plans:
            for name, attack in plan.attacks():
                self.progress(name)
                made = self.system.attacked(plan, attack)
                fooling = made.fooling
                if len(fooling) == 0:
                    cells.append({"name": name, "attempts": len(made), "examples": 0})
                    continue
                rows = self._rows(fooling.pixels)
                who = tuple(f"t{i}" for i in fooling.rows.tolist())
                sides = {
                    j.name: {
                        "auroc": self._auroc(j, rows, who, base, owners),
                        "auroc_rightly_named": self._auroc(
                            j, rows, who, base[right.numpy()], np.array(owners)[right.numpy()]
                        ),
                        **{f"at_{r:g}": self._flagged(j, rows, who, r) for r in RATES},
                    }
                    for j in judges
                }
                change = (fooling.pixels - self.system.test.pixels[fooling.rows]).flatten(1)
                cells.append(
                    {
                        "name": name,
                        "attack": attack.settings(),
                        "attempts": len(made),
                        "examples": len(fooling),
                        "median_l2": float(change.norm(dim=1).median()),
                        "median_changed": float((change != 0).float().mean(dim=1).median()),
                        "judges": sides,
                    }
                )
                kept.append((name, fooling.pixels[: self.baseline_examples], who))
        found["cells"] = cells
        found["baselines"] = self._against(judges, kept, right)
        return found

    def _against(
        self, judges: Sequence[RowJudge], cells: Sequence[tuple[str, Tensor, Any]], right: Any
    ) -> dict[str, Any]:
        """Measure the AUROC of all detectors on the same smaller set of images."""
        tested = self.system.test.pixels[: self.baseline_clean]
        owners = tuple(f"t{i}" for i in range(len(tested)))
        found: dict[str, Any] = {
            "clean": len(tested),
            "cells": [name for name, _, _ in cells],
            "examples": [len(pixels) for _, pixels, _ in cells],
            "judges": {},
            "passes": {},
        }

        def add(judge: RowJudge, base: Array, attacked: Sequence[Array]) -> None:
            found["judges"][judge.name] = [
                self._auroc(judge, rows, who[: len(rows)], base, owners)
                for rows, (_, _, who) in zip(attacked, cells, strict=True)
            ]

        base = self._rows(tested)
        rows = [self._rows(pixels) for _, pixels, _ in cells]
        for judge in judges:
            add(judge, base, rows)
        found["passes"]["NCCR"] = self.measure.passes
        learn = list(self.system.calibrate.pixels[-self.baseline_fit :])
        layers = self.config.layers
        for measure in image_baselines(layers, self.config, attack_step=self.attack_step):
            self.progress(f"judge by {measure.name}")
            clean_rows = self.bank.rows(measure, list(tested), fitted_to=learn).rows
            others = [
                self.bank.rows(measure, list(pixels), fitted_to=learn).rows
                for _, pixels, _ in cells
            ]
            add(published_judge(measure, clean_rows), clean_rows, others)
            found["passes"][measure.name] = measure.passes
        return found

    def _rows(self, pixels: Tensor) -> Array:
        return self.bank.rows(self.measure, list(pixels)).rows

    def _known(self, pixels: Tensor, prefix: str) -> Known:
        return Known(self._rows(pixels), tuple(f"{prefix}{i}" for i in range(len(pixels))))

    def _own_rows(self, plans: Sequence[ImageAttackPlan]) -> Known:
        """Attack ``calibrate``'s correctly classified images; return the rows of the successes."""
        parts = []
        for plan in plans:
            for name, attack in plan.attacks():
                self.progress(f"own {name}")
                made = self.system.attacked(plan, attack, calibrate=True).fooling
                if len(made):
                    who = tuple(f"c{i}" for i in made.rows.tolist())
                    parts.append(Known(self._rows(made.pixels), who))
        together = parts[0]
        for part in parts[1:]:
            together = together + part
        return together

    def _auroc(
        self, judge: RowJudge, attacked: Array, who: Any, clean: Array, owners: Any
    ) -> dict[str, float]:
        sides = (
            Scored(judge.score(attacked), tuple(who)),
            Scored(judge.score(clean), tuple(owners)),
        )
        return mean_auroc([sides], seed=self.system.seed, rounds=self.rounds).to_json()

    def _flagged(self, judge: RowJudge, rows: Array, who: Any, rate: float) -> dict[str, float]:
        hits = judge.flagged(rows, rate)
        return proportion(hits, tuple(who), seed=self.system.seed).to_json()
