"""A detector as an attacker knows it."""

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
from nip_audio.evaluation.detector_judges import RATES, Judge

__all__ = ["Guard"]


@dataclass(frozen=True)
class Guard:
    """An NCCR detector as an attacker knows it: everything but the detector's own draws.

    Attributes:
        name: Of the detector.
        config: What is measured, with as many draws as the attacker can afford in every step.
        known: What flags clips, each with the threshold for 5 %.
        scale: How much more than the threshold weighs as much as a logit.
        beside: What joins NCCR in the evidence, if anything does.
    """

    name: str
    config: NccrConfig
    known: tuple[KnownDetector, ...]
    scale: float
    beside: MehFest | None = None

    @staticmethod
    def of(judge: Judge, config: NccrConfig, *, beside: MehFest | None = None) -> Guard:
        """Know a fitted judge of NCCR rows, or of those and one entry more; draw once a step.

        What weighs as much as a logit: a tenth of the threshold of a distance, one of the log-odds
        of a perceptron and of the terms of a sum.

        Raises:
            InputError: If the judge was not fitted.
        """
        known = []
        for part in judge.parts:
            if part.fitted is None:
                raise InputError(f"{judge.name} was not fitted, expected an NCCR judge")
            rates, detector = (step for _, step in part.fitted.steps)
            limit = conformal_threshold(part.clean, RATES[0])
            known.append(KnownDetector(rates, detector, limit))
        units = isinstance(known[0].detector, AttackPerceptron | CleanSum)
        scale = 1.0 if units else known[0].threshold / 10
        return Guard(judge.name, replace(config, draws=1), tuple(known), scale, beside)

    def settings(self) -> dict[str, Any]:
        """Return what attacks on it depend on, as plain JSON values."""
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
        """Return the aim to have one's way and not to be noticed."""
        evidence = NccrDistance(
            objective.model,
            self.config,
            *self.known,
            generator=generator,
            beside=None if self.beside is None else self.beside.entry,
        )
        return Guarded(objective, evidence, threshold=0.0, scale=self.scale)
