"""Compare NCCR (neuron coverage change rate) detectors with baselines on attacked files.

Detectors differ in what they were fitted on; attacks are read back from files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import make_pipeline
from torch import Tensor

from nip_audio.attacks.base import Attack
from nip_audio.attacks.registry import make_attack
from nip_audio.audio.meh_fest import MehFest
from nip_audio.detectors.base import Measure
from nip_audio.detectors.clean import CleanDistance
from nip_audio.detectors.density import CleanDensity
from nip_audio.detectors.nccr_measure import NccrMeasure, signed_entries
from nip_audio.detectors.rates import LogRates
from nip_audio.detectors.summed import CleanSum
from nip_audio.evaluation.adversarial_sets import AdversarialSet, Recipe, fooling, made_here
from nip_audio.evaluation.config import AttackPlan
from nip_audio.evaluation.controls import CONTROLS, changed_clips
from nip_audio.evaluation.detector_judges import (
    CLEAN_ONLY,
    RATES,
    Known,
    RowJudge,
    clean_judge,
    published_judge,
    trained_judge,
)
from nip_audio.evaluation.guard import AttackedDetector
from nip_audio.evaluation.measured import MeasuredRows, RowBank
from nip_audio.evaluation.paired_auroc import Pair, Scored, mean_auroc, roc_points
from nip_audio.evaluation.statistics import proportion
from nip_audio.evaluation.systems import EvaluatedSystem, Item
from studies.nccr.baseline_detectors import baseline_detectors

__all__ = [
    "COMBINE",
    "JOINED_CLEAN",
    "JOINED_COMBINE",
    "MAIN",
    "TOLERATED",
    "Counts",
    "DetectionStudy",
    "StudiedCell",
]

Array = NDArray[np.float64]
Rows = Mapping[str, Array]
"""Rows of the same clips, by name of the measure."""

COMBINE = "NCCR, perceptron on Combine"

JOINED_CLEAN = "NCCR and MEH-FEST, clean only"
JOINED_COMBINE = "NCCR and MEH-FEST, perceptron on Combine"

MAIN = (CLEAN_ONLY, COMBINE, JOINED_CLEAN, JOINED_COMBINE)
"""Detectors that every other one is compared with."""

_JOINED = "NCCR and MEH-FEST"

TOLERATED = ("MP3", "white noise, 30 dB SNR", "white noise, 20 dB SNR", "10 dB quieter")
"""Harmless changes of ``calibrate`` clips that tolerant detectors are fitted on as clean."""


@dataclass(frozen=True)
class Counts:
    """Numbers of clips that are judged.

    Attributes:
        examples: Examples of each attack that NCCR judges.
        baseline_examples: Examples of each attack that the baselines judge.
        baseline_clean: Unattacked clips that the baselines judge.
        controls: Clips that get each harmless change.
        rounds: Number of bootstrap samples.
    """

    examples: int = 200
    baseline_examples: int = 60
    baseline_clean: int = 160
    controls: int = 100
    rounds: int = 1000


@dataclass(frozen=True)
class StudiedCell:
    """One attack on the system's test clips.

    Attributes:
        row: Description of the attack for tables.
        examples: Adversarial examples, as read back from files.
        against: Whether the baselines judge this attack too.
    """

    row: Mapping[str, Any]
    examples: AdversarialSet
    against: bool


@dataclass(frozen=True)
class DetectionStudy:
    """Detectors of one system, fitted on its ``calibrate`` role, judging its ``test`` role.

    Attributes:
        system: System under evaluation.
        bank: Measures clips and keeps the rows.
        measure: Measure of NCCR.
        quiet: Measure of MEH-FEST (how quiet the clip gets), which two detectors add to NCCR.
        own: Attacks that the defender makes on the ``calibrate`` role, by family.
        out: Folder for those attacks.
        counts: Numbers of clips that are judged.
        seed: Seed of everything random.
        progress: Called with a description of each step.
    """

    system: EvaluatedSystem
    bank: RowBank
    measure: NccrMeasure
    quiet: MehFest
    own: Mapping[str, Sequence[AttackPlan]]
    out: Path
    counts: Counts
    seed: int
    progress: Callable[[str], None] = lambda what: None

    @property
    def signed(self) -> int:
        """Number of signed entries in NCCR's rows."""
        return signed_entries(self.measure.config, head=True)

    def baselines(self) -> tuple[Measure, ...]:
        """Return the published baseline detectors, not fitted."""
        card = self.system.pretrained.card
        return baseline_detectors(
            card.default_taps, self.measure.config, sample_rate_hz=card.sample_rate_hz
        )

    @cached_property
    def nccr_judges(self) -> tuple[RowJudge, ...]:
        """Return all fitted detectors that use NCCR's rows."""
        name, signed = self.measure.name, self.signed
        items = self.system.calibrate
        known = self._known([item.samples for item in items], [item.speaker for item in items])
        clean, joined = known[name], known[_JOINED]
        copies = self._copies()[name]
        own = {family: self._own_rows(plans) for family, plans in self.own.items()}
        scale = LogRates(signed=signed)
        density = make_pipeline(scale, CleanDensity())
        told = "clean clips and harmless changes of them"
        judges = [
            clean_judge(CLEAN_ONLY, name, clean, density),
            clean_judge(f"{CLEAN_ONLY}, tolerant", name, clean, density, copies=copies, knows=told),
        ]
        for kind, distance in (
            ("half-shrunk distance", CleanDistance()),
            ("Ledoit-Wolf distance", CleanDistance(shrinkage=None)),
        ):
            pipeline = make_pipeline(scale, distance)
            judges.append(clean_judge(f"{CLEAN_ONLY}, {kind}", name, clean, pipeline))
        summed = make_pipeline(LogRates(signed=signed + 1), CleanSum())
        judges.append(clean_judge(JOINED_CLEAN, _JOINED, joined, summed))

        trained = partial(trained_judge, measure=name, clean=clean, signed=signed)
        for family, rows in own.items():
            title, told = f"NCCR, perceptron on {family}", f"own {family} on clean clips"
            judges.append(trained(title, attacked=rows[name], knows=told))
        combined = _together(list(own.values()))
        told = f"own {', '.join(own)} on clean clips"
        judges += [
            trained(COMBINE, attacked=combined[name], knows=told),
            trained(
                f"{COMBINE}, tolerant",
                attacked=combined[name],
                copies=copies,
                knows=f"{told}; harmless changes",
            ),
            trained_judge(
                JOINED_COMBINE,
                _JOINED,
                joined,
                combined[_JOINED],
                signed=signed + 1,
                knows=told,
            ),
        ]
        scalar = published_judge(self.measure, clean.rows)
        return (*judges, replace(scalar, name="NCCR, one scalar (Sec. 4)"))

    def baseline_judges(self) -> list[tuple[Measure, RowJudge, RowJudge]]:
        """Fit every baseline twice: as published, and with the two-sided detector that NCCR uses.

        A measure is fitted on one half of the speakers of ``calibrate``; its threshold and the
        two-sided detector are fitted on the other half.
        """
        _, rest = self._halves
        made = []
        for measure in self.baselines():
            self.progress(f"fit {measure.name}")
            rows = self._baseline_rows(measure, [item.samples for item in rest]).rows
            known = Known(rows, tuple(item.speaker for item in rest))
            two_sided = clean_judge(
                f"{measure.name}, two-sided", measure.name, known, make_pipeline(CleanDensity())
            )
            made.append((measure, published_judge(measure, rows), two_sided))
        return made

    def results(
        self, cells: Sequence[StudiedCell], groups: Mapping[str, Sequence[Item]]
    ) -> dict[str, Any]:
        """Judge all attacks and clean clips by all detectors.

        Args:
            cells: Attacks on the system's test clips.
            groups: Further groups of clean clips with false-positive rates of their own, e.g. of
                unknown speakers, by name.
        """
        judges = self.nccr_judges
        items = self.system.items
        clips, owners = [item.samples for item in items], tuple(item.speaker for item in items)
        clean = self._rows(clips)
        found: dict[str, Any] = {
            "calibrate": len(self.system.calibrate),
            "clean": len(items),
            "named_rightly": float(self.system.is_correct.mean()),
            "judges": {judge.name: judge.knows for judge in judges},
            "passes": self.measure.passes,
            "seconds": self.bank.rows(self.measure, clips).seconds,
            "false_positives": self._false_positives(judges, {"own voices": items} | dict(groups)),
            "controls": self._controls(judges),
        }
        rows = []
        for cell in cells:
            self.progress(str(cell.row["name"]))
            clips, speakers = fooling(cell.examples, self.counts.examples)
            if not clips:
                continue
            attacked = self._rows(clips)
            sides = {
                judge.name: self._cell(judge, attacked, speakers, clean, owners) for judge in judges
            }
            curves = {
                judge.name: roc_points(
                    judge.score(attacked[judge.measure]), judge.score(clean[judge.measure])
                )
                for judge in judges
                if judge.name in (CLEAN_ONLY, COMBINE)
            }
            rows.append({**cell.row, "examples": len(clips), "judges": sides, "roc": curves})
        found["cells"] = rows
        found["baselines"] = self._against(judges, [cell for cell in cells if cell.against])
        return found

    def adaptive(self, plan: AttackPlan) -> list[dict[str, Any]]:
        """Attack model and detector together: change the prediction without being flagged.

        The attacker knows everything but the detector's random draws, which depend on the clip that
        they send.

        Args:
            plan: Plan of an end-to-end attack.

        Returns:
            One row per detector and ε.
        """
        items = self.system.correct_items[: plan.items]
        rows = []
        for judge in self.nccr_judges:
            if judge.name not in MAIN:
                continue
            beside = self.quiet if judge.measure == _JOINED else None
            for eps in plan.eps:
                self.progress(f"adaptive to {judge.name}, {eps}")
                attack = make_attack(plan.attack, eps=eps, level=plan.level, settings=plan.settings)
                guard = AttackedDetector.of(judge, self.measure.config, beside=beside)
                made = self._made(self.system, items, plan, attack, guard=guard, what="adaptive")
                clips, speakers = fooling(made, len(made.examples))
                fooled = [example.fooled for example in made.examples]
                owners = [example.speaker for example in made.examples]
                row: dict[str, Any] = {
                    "judge": judge.name,
                    "attack": attack.settings(),
                    "attempts": len(fooled),
                    "success": self._share(np.array(fooled), owners),
                    "flagged": None,
                }
                if clips:
                    found = self._rows(clips)
                    row["flagged"] = self._flagged(judge, found[judge.measure], speakers)
                rows.append(row)
        return rows

    def _cell(
        self,
        judge: RowJudge,
        attacked: Rows,
        speakers: tuple[str, ...],
        clean: Rows,
        owners: tuple[str, ...],
    ) -> dict[str, Any]:
        rows, base = attacked[judge.measure], clean[judge.measure]
        sides = (Scored(judge.score(rows), speakers), Scored(judge.score(base), owners))
        return {
            "auroc": self._auroc([sides]),
            **{
                f"flagged_{rate}": share
                for rate, share in self._flagged(judge, rows, speakers).items()
            },
        }

    def _false_positives(
        self, judges: Sequence[RowJudge], groups: Mapping[str, Sequence[Item]]
    ) -> dict[str, Any]:
        found = {}
        for group, items in groups.items():
            self.progress(f"clean clips of {group}")
            rows = self._rows([item.samples for item in items])
            speakers = [item.speaker for item in items]
            flagged = {
                judge.name: self._flagged(judge, rows[judge.measure], speakers) for judge in judges
            }
            found[group] = {"clips": len(items), "judges": flagged}
        return found

    def _controls(self, judges: Sequence[RowJudge]) -> list[dict[str, Any]]:
        items = self.system.items[: self.counts.controls]
        speakers = tuple(item.speaker for item in items)
        rows = []
        for control in CONTROLS:
            self.progress(control.name)
            changed = self._rows(self._changed(control.name, items))
            flagged = {
                judge.name: self._flagged(judge, changed[judge.measure], speakers)
                for judge in judges
            }
            rows.append({"control": control.name, "clips": len(items), "judges": flagged})
        return rows

    def _against(self, judges: Sequence[RowJudge], cells: Sequence[StudiedCell]) -> dict[str, Any]:
        """Compare the mean AUROC of all detectors on the same clips."""
        if not cells:
            return {}
        items = self.system.items[: self.counts.baseline_clean]
        owners = tuple(item.speaker for item in items)
        clips = [fooling(cell.examples, self.counts.baseline_examples) for cell in cells]
        clean_clips = [item.samples for item in items]
        sides: dict[str, list[Pair]] = {}
        costs: dict[str, dict[str, float]] = {}

        def judged(by: Iterable[RowJudge], base: Rows, attacked: Sequence[Rows]) -> None:
            for judge in by:
                clean = Scored(judge.score(base[judge.measure]), owners)
                sides[judge.name] = [
                    (Scored(judge.score(rows[judge.measure]), who), clean)
                    for rows, (_, who) in zip(attacked, clips, strict=True)
                ]

        judged(judges, self._rows(clean_clips), [self._rows(attacked) for attacked, _ in clips])
        for measure, *both in self.baseline_judges():
            self.progress(f"judge by {measure.name}")
            base = self._baseline_rows(measure, clean_clips)
            attacked = [
                {measure.name: self._baseline_rows(measure, clip).rows} for clip, _ in clips
            ]
            judged(both, {measure.name: base.rows}, attacked)
            costs[measure.name] = {"passes": measure.passes, "seconds": base.seconds}
        best = {name: sides[name] for name in MAIN}
        return {
            "clean": len(items),
            "cells": [cell.row["name"] for cell in cells],
            "examples": [len(attacked) for attacked, _ in clips],
            "costs": costs,
            "judges": {
                name: {
                    "cells": [self._auroc([side]) for side in each],
                    "mean": self._auroc(each),
                    "beaten_by": {
                        ours: self._auroc(each, ahead=lead)
                        for ours, lead in best.items()
                        if ours != name
                    },
                }
                for name, each in sides.items()
            },
        }

    @cached_property
    def _halves(self) -> tuple[list[Item], list[Item]]:
        items = self.system.calibrate
        names = sorted({item.speaker for item in items})
        first = set(names[::2])
        return (
            [item for item in items if item.speaker in first],
            [item for item in items if item.speaker not in first],
        )

    def _baseline_rows(self, measure: Measure, clips: Sequence[Tensor]) -> MeasuredRows:
        learn = [item.samples for item in self._halves[0]]
        return self.bank.rows(measure, clips, fitted_to=learn)

    def _rows(self, clips: Sequence[Tensor]) -> Rows:
        nccr = self.bank.rows(self.measure, clips).rows
        quiet = self.bank.rows(self.quiet, clips).rows
        joined = np.column_stack([nccr[:, :-1], quiet, nccr[:, -1:]])  # the length stays last
        return {self.measure.name: nccr, _JOINED: joined}

    def _known(self, clips: Sequence[Tensor], speakers: Sequence[str]) -> dict[str, Known]:
        return {name: Known(rows, tuple(speakers)) for name, rows in self._rows(clips).items()}

    def _copies(self) -> dict[str, Known]:
        """Measure harmlessly changed ``calibrate`` clips; each change uses every other clip."""
        parts = []
        for number, name in enumerate(TOLERATED):
            self.progress(f"calibrate, {name}")
            items = self.system.calibrate[number % 2 :: 2]
            speakers = [item.speaker for item in items]
            parts.append(self._known(self._changed(name, items), speakers))
        return _together(parts)

    def _changed(self, name: str, items: Sequence[Item]) -> list[Tensor]:
        (control,) = (c for c in CONTROLS if c.name == name)
        rate = self.system.pretrained.card.sample_rate_hz
        return changed_clips(control, items, sample_rate_hz=rate, seed=self.seed)

    def _own_rows(self, plans: Sequence[AttackPlan]) -> dict[str, Known]:
        """Attack ``calibrate``'s correctly classified clips; return the rows of the successes."""
        attacked = replace(self.system, items=self.system.calibrate, calibrate=())
        items = attacked.correct_items
        parts = []
        for plan in plans:
            for eps in plan.eps:
                self.progress(f"own {plan.attack} {eps}")
                attack = make_attack(plan.attack, eps=eps, level=plan.level, settings=plan.settings)
                made = self._made(attacked, items[: plan.items], plan, attack, what="own")
                clips, speakers = fooling(made, len(made.examples))
                if clips:
                    parts.append(self._known(clips, speakers))
        return _together(parts)

    def _made(
        self,
        system: EvaluatedSystem,
        items: Sequence[Item],
        plan: AttackPlan,
        attack: Attack,
        *,
        guard: AttackedDetector | None = None,
        what: str,
    ) -> AdversarialSet:
        recipe = Recipe(
            system=system,
            source=system,
            purifier=None,
            guard=guard,
            attack=attack,
            level=plan.level,
            items=items,
            seed=self.seed,
            batch=plan.batch,
        )
        return made_here(recipe, self.out, name=f"{what}-{system.name}-{plan.attack}")

    def _auroc(
        self, pairs: Sequence[Pair], *, ahead: Sequence[Pair] | None = None
    ) -> dict[str, float]:
        rounds = self.counts.rounds
        return mean_auroc(pairs, seed=self.seed, rounds=rounds, ahead=ahead).to_json()

    def _flagged(
        self, judge: RowJudge, rows: Array, speakers: Sequence[str]
    ) -> dict[str, dict[str, float]]:
        """Return the share of rows flagged, by false-positive rate."""
        return {f"at_{rate:g}": self._share(judge.flagged(rows, rate), speakers) for rate in RATES}

    def _share(self, hits: NDArray[np.bool_], speakers: Sequence[str]) -> dict[str, float]:
        return proportion(hits, speakers, seed=self.seed).to_json()


def _together(parts: Sequence[Mapping[str, Known]]) -> dict[str, Known]:
    together = dict(parts[0])
    for part in parts[1:]:
        together = {name: known + part[name] for name, known in together.items()}
    return together
