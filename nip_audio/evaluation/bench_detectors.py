"""Fit the detectors that an evaluation tests: NCCR on clean clips, and the score change.

NCCR is the neuron coverage change rate; the change of the scores under the same noise is the
simpler detector that it has to beat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import make_pipeline
from torch import Tensor

from nip_audio.core.nccr import NccrConfig
from nip_audio.detectors.base import Measure
from nip_audio.detectors.baselines.score_change import ScoreChange
from nip_audio.detectors.density import CleanDensity
from nip_audio.detectors.nccr_measure import NccrMeasure, signed_entries
from nip_audio.detectors.rates import LogRates
from nip_audio.errors import CalibrationError
from nip_audio.evaluation.detector_judges import (
    CLEAN_ONLY,
    Known,
    RowJudge,
    clean_judge,
    published_judge,
)
from nip_audio.evaluation.guard import AttackedDetector
from nip_audio.evaluation.measured import RowBank
from nip_audio.evaluation.systems import EvaluatedSystem

__all__ = ["BenchDetectors"]

Array = NDArray[np.float64]

_LEAST_SPEAKERS = 5


@dataclass(frozen=True)
class BenchDetectors:
    """Detectors of one system; none of them has seen an attack.

    Attributes:
        bank: Measures clips and keeps the rows, so that each clip is measured once.
        measures: Measures whose rows the detectors score.
        judges: Fitted detectors; the first, NCCR, is the one that an adaptive attacker attacks.
        config: Settings of NCCR.
    """

    bank: RowBank
    measures: tuple[Measure, ...]
    judges: tuple[RowJudge, ...]
    config: NccrConfig

    @staticmethod
    def fit(
        system: EvaluatedSystem, config: NccrConfig, folder: Path, *, seed: int
    ) -> BenchDetectors:
        """Fit detectors on the ``calibrate`` role; thresholds come from held-out speakers.

        Args:
            system: System under evaluation.
            config: Settings of NCCR; |Δscore| is measured under the same noise.
            folder: Folder where measured rows are kept.
            seed: Seed of the noise generator.

        Raises:
            CalibrationError: With fewer than five speakers, or too few clips for the rates.
        """
        items = system.calibrate
        speakers = tuple(item.speaker for item in items)
        if len(set(speakers)) < _LEAST_SPEAKERS:
            raise CalibrationError(
                f"the calibrate role of {system.name} has clips of {len(set(speakers))} speakers, "
                f"expected at least {_LEAST_SPEAKERS}; add speakers, or set detect to 0"
            )
        bank = RowBank(system, folder, seed)
        nccr, change = NccrMeasure(config), ScoreChange(config)
        clips = [item.samples for item in items]
        known = Known(bank.rows(nccr, clips).rows, speakers)
        changes = Known(bank.rows(change, clips).rows, speakers)
        scale = LogRates(signed=signed_entries(config, head=True))
        density = CleanDensity()
        judges = (
            clean_judge(CLEAN_ONLY, nccr.name, known, make_pipeline(scale, density)),
            published_judge(change, changes.rows),
            clean_judge(f"{change.name}, two-sided", change.name, changes, make_pipeline(density)),
        )
        return BenchDetectors(bank, (nccr, change), judges, config)

    @property
    def guard(self) -> AttackedDetector:
        """NCCR detector as an adaptive attacker knows it."""
        return AttackedDetector.of(self.judges[0], self.config)

    def rows(self, clips: Sequence[Tensor]) -> Mapping[str, Array]:
        """Measure clips; return the rows of each measure by its name."""
        return {measure.name: self.bank.rows(measure, clips).rows for measure in self.measures}
