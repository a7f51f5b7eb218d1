"""Judge attacked and clean items, clips or images, by all detectors of a study."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nip_audio.core.metrics import Interval
from nip_audio.detectors.base import Measure
from nip_audio.evaluation.detector_judges import RATES, Known, RowJudge
from nip_audio.evaluation.measured import MeasuredRows, RowBank
from nip_audio.evaluation.paired_auroc import Pair, Scored, mean_auroc
from studies._lib.shares import share_of
from studies.nccr.results import Compared, Comparisons, Cost, Flagged, Judged

__all__ = ["Comparison", "Items", "Measured", "together"]

Array = NDArray[np.float64]
Rows = Mapping[str, Array]
"""Rows of the same items, by name of the measure."""


@dataclass(frozen=True)
class Items:
    """Clips or images, and whose each is or which it is; intervals resample the owners."""

    clips: Sequence[Tensor]
    owners: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.clips)

    def first(self, count: int) -> Items:
        """Return the first items."""
        return Items(self.clips[:count], self.owners[:count])


@dataclass(frozen=True)
class Measured:
    """Measurements of items."""

    rows: Rows
    owners: tuple[str, ...]

    def known(self, measure: str) -> Known:
        """Return the rows of one measure, to fit a detector on."""
        return Known(self.rows[measure], self.owners)

    def scored(self, judge: RowJudge) -> Scored:
        """Return a detector's scores."""
        return Scored(judge.score(self.rows[judge.measure]), self.owners)

    def only(self, kept: NDArray[np.bool_]) -> Measured:
        """Select items."""
        rows = {name: part[kept] for name, part in self.rows.items()}
        return Measured(rows, tuple(np.asarray(self.owners)[kept].tolist()))


def together(parts: Sequence[Measured]) -> Measured:
    """Join the measurements of several sets of items."""
    rows = {name: np.concatenate([part.rows[name] for part in parts]) for name in parts[0].rows}
    return Measured(rows, tuple(owner for part in parts for owner in part.owners))


@dataclass(frozen=True)
class Comparison:
    """Measures items and has them judged.

    Attributes:
        bank: Measures items and keeps the rows.
        measure: Returns the rows that the study's own detectors judge.
        rounds: Number of bootstrap samples.
        progress: Called with a description of each step.
    """

    bank: RowBank
    measure: Callable[[Sequence[Tensor]], Rows]
    rounds: int
    progress: Callable[[str], None] = lambda what: None

    def measured(self, items: Items) -> Measured:
        """Measure items."""
        return Measured(self.measure(items.clips), items.owners)

    def flagged(self, judge: RowJudge, measured: Measured) -> Flagged:
        """Return the share of items flagged, by false-positive rate."""
        rows, seed = measured.rows[judge.measure], self.bank.seed
        return {
            f"{rate:g}": share_of(judge.flagged(rows, rate), measured.owners, seed=seed)
            for rate in RATES
        }

    def all_flagged(self, judges: Sequence[RowJudge], measured: Measured) -> dict[str, Flagged]:
        """Return the shares flagged by each detector."""
        return {judge.name: self.flagged(judge, measured) for judge in judges}

    def judged(
        self, judge: RowJudge, attacked: Measured, clean: Measured, correct: Measured | None = None
    ) -> Judged:
        """Judge attacked items among clean ones, and among those that are classified correctly."""
        positive = attacked.scored(judge)
        areas = (self.auroc([(positive, side.scored(judge))]) for side in (clean, correct) if side)
        auroc, *others = areas
        return Judged(auroc, self.flagged(judge, attacked), *others)

    def auroc(self, pairs: Sequence[Pair], ahead: Sequence[Pair] | None = None) -> Interval:
        """Return the mean AUROC, or how far the scores of another detector are ahead of it."""
        return mean_auroc(pairs, seed=self.bank.seed, rounds=self.rounds, ahead=ahead)

    def compare(
        self,
        judges: Sequence[RowJudge],
        main: Sequence[str],
        baselines: Iterable[tuple[Measure, Sequence[RowJudge]]],
        *,
        clean: Items,
        attacked: Mapping[str, Items],
        learn: Sequence[Tensor],
    ) -> Comparisons:
        """Compare the AUROC of all detectors on the same items.

        Args:
            judges: The study's own detectors.
            main: Names of those that all others are compared with.
            baselines: Measures of the baselines, and the detectors that use each.
            clean: Items that nobody attacked.
            attacked: Successful examples, by the name of the attack.
            learn: Items that the baselines are fitted on.
        """
        sides: dict[str, list[Pair]] = {}
        costs: dict[str, Cost] = {}

        def add(by: Sequence[RowJudge], base: Measured, found: Sequence[Measured]) -> None:
            for judge in by:
                side = base.scored(judge)
                sides[judge.name] = [(one.scored(judge), side) for one in found]

        add(judges, self.measured(clean), [self.measured(items) for items in attacked.values()])
        for measure, own in baselines:
            self.progress(f"judge by {measure.name}")
            base, *found = (
                self.by_baseline(measure, items.clips, learn)
                for items in (clean, *attacked.values())
            )
            others = [
                Measured({measure.name: rows.rows}, items.owners)
                for rows, items in zip(found, attacked.values(), strict=True)
            ]
            add(own, Measured({measure.name: base.rows}, clean.owners), others)
            costs[measure.name] = Cost(measure.passes, base.seconds)
        best = {name: sides[name] for name in main}
        return Comparisons(
            clean=len(clean),
            cells=list(attacked),
            examples=[len(items) for items in attacked.values()],
            judges={
                name: Compared(
                    cells=[self.auroc([side]) for side in each],
                    mean=self.auroc(each),
                    beaten_by={n: self.auroc(each, lead) for n, lead in best.items() if n != name},
                )
                for name, each in sides.items()
            },
            costs=costs,
        )

    def by_baseline(
        self, measure: Measure, clips: Sequence[Tensor], learn: Sequence[Tensor]
    ) -> MeasuredRows:
        """Measure items as a baseline does that is fitted on others."""
        return self.bank.rows(measure, clips, fitted_to=learn)
