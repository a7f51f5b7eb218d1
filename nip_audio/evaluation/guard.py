"""Describe a detector as an adaptive attacker knows it, and make the objective that evades it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import torch

from nip_audio.attacks.objectives import Guarded, Objective
from nip_audio.audio.meh_fest import MehFest
from nip_audio.core.nccr import NccrConfig
from nip_audio.detectors.conformal import conformal_threshold
from nip_audio.detectors.differentiable import KnownDetector, NccrDistance
from nip_audio.detectors.perceptron import AttackPerceptron
from nip_audio.detectors.summed import CleanSum
from nip_audio.errors import InputError
from nip_audio.evaluation.detector_judges import RATES, RowJudge

__all__ = ["AttackedDetector"]


@dataclass(frozen=True)
class AttackedDetector:
    """An NCCR detector as an attacker knows it: everything but the detector's random draws.

    Attributes:
        name: Name of the detector.
        config: Settings of NCCR, with as many draws as the attacker can afford in every step.
        known: Fitted detectors, each with its threshold for a false-positive rate of 5 %.
        scale: Excess over the threshold that weighs as much as one logit.
        beside: Measure that is added to NCCR in the evidence, if any.
    """

    name: str
    config: NccrConfig
    known: tuple[KnownDetector, ...]
    scale: float
    beside: MehFest | None = None

    @staticmethod
    def of(
        judge: RowJudge, config: NccrConfig, *, beside: MehFest | None = None
    ) -> AttackedDetector:
        """Take what an attacker knows from a fitted detector of NCCR rows; draw once per step.

        The rows may have one further entry, from ``beside``. A tenth of the threshold of a distance
        weighs as much as one logit, and so does 1 of the log-odds of a perceptron or of a sum.

        Raises:
            InputError: If the detector was not fitted.
        """
        known = []
        for part in judge.parts:
            if part.fitted is None:
                raise InputError(
                    f"{judge.name} has nothing fitted; give a detector fitted on NCCR rows"
                )
            rates, detector = (step for _, step in part.fitted.steps)
            limit = conformal_threshold(part.clean, RATES[0])
            known.append(KnownDetector(rates, detector, limit))
        units = isinstance(known[0].detector, AttackPerceptron | CleanSum)
        scale = 1.0 if units else known[0].threshold / 10
        return AttackedDetector(judge.name, replace(config, draws=1), tuple(known), scale, beside)

    def settings(self) -> dict[str, Any]:
        """Return everything that attacks on the detector depend on, as JSON values."""
        digest = hashlib.sha256()
        for one in self.known:
            for fitted in (one.rates, one.detector):
                for _, tensor in sorted(fitted.to_tensors().items()):
                    digest.update(tensor.numpy().tobytes())
        return {
            "name": self.name,
            "config": self.config.to_json(),
            "thresholds": [one.threshold for one in self.known],
            "scale": self.scale,
            "beside": None if self.beside is None else self.beside.settings(),
            "fitted_sha256": digest.hexdigest(),
        }

    def guard(self, objective: Objective, *, generator: torch.Generator) -> Guarded:
        """Return an objective that succeeds only if the attack is not detected."""
        evidence = NccrDistance(
            objective.model,
            self.config,
            *self.known,
            generator=generator,
            beside=None if self.beside is None else self.beside.entry,
        )
        return Guarded(objective, evidence, threshold=0.0, scale=self.scale)
