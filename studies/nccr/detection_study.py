"""Compare NCCR (neuron coverage change rate) detectors with baselines on attacked files.

Detectors differ in what they were fitted on; attacks are read back from files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from sklearn.pipeline import make_pipeline
from torch import Tensor

from nip_audio.attacks.base import Attack
from nip_audio.audio.meh_fest import MehFest
from nip_audio.detectors.base import Measure
from nip_audio.detectors.clean import CleanDistance
from nip_audio.detectors.density import CleanDensity
from nip_audio.detectors.nccr_measure import (
    CoverageMeasure,
    NccrMeasure,
    neuron_rows,
    signed_entries,
)
from nip_audio.detectors.rates import LogRates
from nip_audio.detectors.summed import CleanSum
from nip_audio.evaluation.adversarial_sets import AdversarialSet, Recipe, fooling, made_here
from nip_audio.evaluation.config import AttackPlan
from nip_audio.evaluation.controls import CONTROLS, changed_clips
from nip_audio.evaluation.detector_judges import (
    CLEAN_ONLY,
    Known,
    RowJudge,
    clean_judge,
    published_judge,
    trained_judge,
)
from nip_audio.evaluation.guard import AttackedDetector
from nip_audio.evaluation.measured import RowBank
from nip_audio.evaluation.paired_auroc import roc_points
from nip_audio.evaluation.systems import EvaluatedSystem, Item
from studies._lib.attacks import attacks_of
from studies._lib.shares import share_of
from studies.nccr.baseline_detectors import baseline_detectors
from studies.nccr.comparison import Comparison, Items, Measured, Rows, together
from studies.nccr.results import (
    AdaptiveRow,
    CleanGroup,
    Comparisons,
    DetectionCell,
    DetectionResults,
)

__all__ = [
    "COMBINE",
    "JOINED_CLEAN",
    "JOINED_COMBINE",
    "L0_SCALAR",
    "L2_SCALAR",
    "MAIN",
    "PUBLISHED",
    "TOLERATED",
    "Counts",
    "DetectionStudy",
    "StudiedCell",
    "items_of",
]

COMBINE = "NCCR and decision, perceptron on Combine"

JOINED_CLEAN = "NCCR, decision and MEH-FEST, clean only"
JOINED_COMBINE = "NCCR, decision and MEH-FEST, perceptron on Combine"

PUBLISHED = "NCCR, perceptron on Combine"
L2_SCALAR, L0_SCALAR = "NCCR, l2 scalar (Sec. 4)", "NCCR, l0 scalar (Sec. 5)"

MAIN = (CLEAN_ONLY, COMBINE, JOINED_CLEAN, JOINED_COMBINE)
"""Detectors that every other one is compared with."""

_JOINED = "NCCR, decision and MEH-FEST"
_NEURONS = "NCCR"
"""Changes of the neurons alone: the paper's rows."""

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
        row: Description of the attack, without its results.
        examples: Adversarial examples, as read back from files.
        against: Whether the baselines judge this attack too.
    """

    row: DetectionCell
    examples: AdversarialSet
    against: bool


@dataclass(frozen=True)
class DetectionStudy:
    """Detectors of one system, fitted on its ``calibrate`` role, judging its ``test`` role.

    Attributes:
        system: System under evaluation.
        bank: Measures clips and keeps the rows.
        measure: Measure of NCCR and of the decision.
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
        """Return all fitted detectors of neurons and decision, and the paper's of neurons alone."""
        name, signed = self.measure.name, self.signed
        known = self._comparison.measured(items_of(self.system.calibrate))
        clean, joined = known.known(name), known.known(_JOINED)
        copies = self._copies().known(name)
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
            title, told = f"perceptron on {family}", f"own {family} on clean clips"
            judges += [
                trained(f"{name}, {title}", attacked=rows.known(name), knows=told),
                self._published(title, known, rows, knows=told),
            ]
        combined = together(list(own.values()))
        told = f"own {', '.join(own)} on clean clips"
        judges += [
            trained(COMBINE, attacked=combined.known(name), knows=told),
            trained(
                f"{COMBINE}, tolerant",
                attacked=combined.known(name),
                copies=copies,
                knows=f"{told}; harmless changes",
            ),
            trained_judge(
                JOINED_COMBINE,
                _JOINED,
                joined,
                combined.known(_JOINED),
                signed=signed + 1,
                knows=told,
            ),
        ]
        judges.append(self._published("perceptron on Combine", known, combined, knows=told))
        neurons = known.known(_NEURONS)
        pipeline = make_pipeline(LogRates(), CleanDensity())
        judges.append(clean_judge(f"{_NEURONS}, clean only", _NEURONS, neurons, pipeline))
        l2, l0 = (published_judge(m, known.rows[m.name]) for m in (self.measure, self._coverage))
        return (*judges, replace(l2, name=L2_SCALAR), replace(l0, name=L0_SCALAR))

    @property
    def _coverage(self) -> CoverageMeasure:
        return CoverageMeasure(self.measure.config)

    def _published(self, title: str, clean: Measured, own: Measured, *, knows: str) -> RowJudge:
        """Fit the paper's perceptron to changes of the neurons alone."""
        benign, attacked = clean.known(_NEURONS), own.known(_NEURONS)
        return trained_judge(
            f"{_NEURONS}, {title}", _NEURONS, benign, attacked, signed=0, knows=knows
        )

    def baseline_judges(self) -> list[tuple[Measure, list[RowJudge]]]:
        """Fit every baseline twice: by its own score, and with the two-sided detector of NCCR.

        A measure is fitted on one half of the speakers of ``calibrate``; its threshold and the
        two-sided detector are fitted on the other half.
        """
        learn, rest = self._halves
        made = []
        for measure in self.baselines():
            self.progress(f"fit {measure.name}")
            rows = self._comparison.by_baseline(measure, rest.clips, learn.clips).rows
            known = Known(rows, rest.owners)
            two_sided = clean_judge(
                f"{measure.name}, two-sided", measure.name, known, make_pipeline(CleanDensity())
            )
            made.append((measure, [published_judge(measure, rows), two_sided]))
        return made

    def results(
        self, cells: Sequence[StudiedCell], groups: Mapping[str, Items]
    ) -> DetectionResults:
        """Judge all attacks and clean clips by all detectors.

        Args:
            cells: Attacks on the system's test clips.
            groups: Further groups of clean clips with false-positive rates of their own, e.g. of
                unknown speakers, by name.
        """
        judges, compare = self.nccr_judges, self._comparison
        items = items_of(self.system.items)
        clean = compare.measured(items)
        rows = []
        for cell in cells:
            self.progress(cell.row.name)
            examples = Items(*fooling(cell.examples, self.counts.examples))
            if not examples.clips:
                continue
            attacked = compare.measured(examples)
            curves = {
                judge.name: roc_points(attacked.scored(judge).scores, clean.scored(judge).scores)
                for judge in judges
                if judge.name in (CLEAN_ONLY, COMBINE)
            }
            judged = {judge.name: compare.judged(judge, attacked, clean) for judge in judges}
            rows.append(replace(cell.row, examples=len(examples), judges=judged, roc=curves))
        return DetectionResults(
            calibrate=len(self.system.calibrate),
            clean=len(items),
            accuracy=float(self.system.is_correct.mean()),
            judges={judge.name: judge.knows for judge in judges},
            passes=self.measure.passes,
            seconds=self.bank.rows(self.measure, items.clips).seconds,
            false_positives={
                name: self._clean_group(group)
                for name, group in {"own voices": items, **groups}.items()
            },
            controls=self._controls(),
            cells=rows,
            baselines=self._against([cell for cell in cells if cell.against]),
        )

    def adaptive(self, plan: AttackPlan) -> list[AdaptiveRow]:
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
            for name, attack in attacks_of(plan):
                self.progress(f"adaptive to {judge.name}, {name}")
                guard = AttackedDetector.of(judge, self.measure.config, beside=beside)
                made = self._made(self.system, items, plan, attack, guard=guard, what="adaptive")
                fools = Items(*fooling(made, len(made.examples)))
                fooled = [example.fooled for example in made.examples]
                owners = [example.speaker for example in made.examples]
                flagged = None
                if fools.clips:
                    flagged = self._comparison.flagged(judge, self._comparison.measured(fools))
                success = share_of(fooled, owners, seed=self.seed)
                rows.append(
                    AdaptiveRow(judge.name, attack.settings(), len(fooled), success, flagged)
                )
        return rows

    @property
    def _comparison(self) -> Comparison:
        return Comparison(self.bank, self._rows, self.counts.rounds, self.progress)

    def _clean_group(self, items: Items, control: str | None = None) -> CleanGroup:
        flagged = self._comparison.all_flagged(self.nccr_judges, self._comparison.measured(items))
        return CleanGroup(len(items), flagged, control)

    def _controls(self) -> list[CleanGroup]:
        items = self.system.items[: self.counts.controls]
        rows = []
        for control in CONTROLS:
            self.progress(control.name)
            rows.append(self._clean_group(self._changed(control.name, items), control.name))
        return rows

    def _against(self, cells: Sequence[StudiedCell]) -> Comparisons | None:
        """Compare the mean AUROC of all detectors on the same clips."""
        if not cells:
            return None
        most = self.counts.baseline_examples
        return self._comparison.compare(
            self.nccr_judges,
            MAIN,
            self.baseline_judges(),
            clean=items_of(self.system.items[: self.counts.baseline_clean]),
            attacked={cell.row.name: Items(*fooling(cell.examples, most)) for cell in cells},
            learn=self._halves[0].clips,
        )

    @cached_property
    def _halves(self) -> tuple[Items, Items]:
        items = self.system.calibrate
        first = set(sorted({item.speaker for item in items})[::2])
        return (
            items_of([item for item in items if item.speaker in first]),
            items_of([item for item in items if item.speaker not in first]),
        )

    def _rows(self, clips: Sequence[Tensor]) -> Rows:
        nccr = self.bank.rows(self.measure, clips).rows
        quiet = self.bank.rows(self.quiet, clips).rows
        joined = np.column_stack([nccr[:, :-1], quiet, nccr[:, -1:]])  # the length stays last
        return {
            self.measure.name: nccr,
            _NEURONS: neuron_rows(nccr, self.measure.config),
            self._coverage.name: self.bank.rows(self._coverage, clips).rows,
            _JOINED: joined,
        }

    def _copies(self) -> Measured:
        """Measure harmlessly changed ``calibrate`` clips; each change uses every other clip."""
        parts = []
        for number, name in enumerate(TOLERATED):
            self.progress(f"calibrate, {name}")
            items = self.system.calibrate[number % 2 :: 2]
            parts.append(self._comparison.measured(self._changed(name, items)))
        return together(parts)

    def _changed(self, name: str, items: Sequence[Item]) -> Items:
        (control,) = (c for c in CONTROLS if c.name == name)
        rate = self.system.pretrained.card.sample_rate_hz
        changed = changed_clips(control, items, sample_rate_hz=rate, seed=self.seed)
        return replace(items_of(items), clips=changed)

    def _own_rows(self, plans: Sequence[AttackPlan]) -> Measured:
        """Attack ``calibrate``'s correctly classified clips; return the rows of the successes."""
        attacked = replace(self.system, items=self.system.calibrate, calibrate=())
        items = attacked.correct_items
        parts = []
        for plan in plans:
            for name, attack in attacks_of(plan):
                self.progress(f"own {name}")
                made = self._made(attacked, items[: plan.items], plan, attack, what="own")
                fools = Items(*fooling(made, len(made.examples)))
                if fools.clips:
                    parts.append(self._comparison.measured(fools))
        return together(parts)

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


def items_of(items: Sequence[Item]) -> Items:
    """Return the clips of items, and their speakers."""
    return Items([item.samples for item in items], tuple(item.speaker for item in items))
