"""Poison sets of clips or images, train on them, and test which detectors find the poison."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nip_audio.core.model import InstrumentedModel
from nip_audio.core.seeds import seed_of
from nip_audio.core.state import write_atomic
from nip_audio.errors import ResumeError
from studies._lib.shares import share_of
from studies.backdoors.judging import (
    JudgingPlan,
    MeasuredSet,
    judge_baselines,
    judge_set,
    measure_set,
)
from studies.backdoors.models import BackdoorCase, poisoned_by, success_of
from studies.backdoors.poisoning import Clips, PoisonedClips

__all__ = ["BackdoorStudy"]


@dataclass(frozen=True)
class BackdoorStudy:
    """Data and settings that all cases of a study share.

    Attributes:
        sets: Clips by role.
        clean_inputs: (m, F, T) model inputs of the ``calibrate`` role, for STRIP.
        plan: Settings of the detectors.
        out: Folder where models, measurements and the baselines' verdicts are kept.
        enrolment: Whether to judge the ``test`` clips too, poisoned as an enrolment set.
        judging_seed: Returns the seed of measuring and judging a case from the case's own.
        progress: Called with a description of each step.
    """

    sets: Mapping[str, Clips]
    clean_inputs: Tensor
    plan: JudgingPlan
    out: Path
    enrolment: bool = True
    judging_seed: Callable[[int], int] = partial(seed_of, "judging")
    progress: Callable[[str], None] = lambda what: None

    def judge(self, case: BackdoorCase, *, baselines: bool = True) -> dict[str, Any]:
        """Train a case or read its kept model, and measure attack and defences."""
        train, test = self.sets["train"], self.sets["test"]
        poisoned = poisoned_by(case, train)
        model = case.model(poisoned, self.out, self.progress)
        seed = self.judging_seed(case.seed)
        sets = {"train": poisoned}
        if self.enrolment:
            target = poisoned.target
            sets["enrolment"] = poisoned_by(case, test, salt="enrolment", target=target)
        found = {
            "trigger": case.trigger,
            "seed": case.seed,
            "target": test.speakers[poisoned.target],
            "snr_db": poisoned.median_snr_db,
            "success": self.success(case, model, poisoned.target, seed),
        }
        for name, judged in sets.items():
            self.progress(f"{case.name}: measure {name}")
            measured = self.measured(case, name, model, judged, seed)
            verdicts = judge_set(model, judged, measured, self.plan)
            if name == "train":
                verdicts |= self.baselines(case, model, judged, measured, seed, missing=baselines)
            found[name] = verdicts
        return found

    def success(
        self, case: BackdoorCase, model: InstrumentedModel, target: int, seed: int
    ) -> dict[str, Any]:
        """Measure accuracy and attack success, with intervals over speakers, or over images."""
        test = self.sets["test"]
        reached = success_of(model, case, test, target)
        everybody = torch.arange(len(test))
        rows = {
            "accuracy": (reached.accuracy, everybody),
            "without": (reached.without, reached.others),
            "attack": (reached.attack, reached.others),
        }
        return {
            name: share_of(hits, test.owners(chosen), seed=seed).to_json()
            for name, (hits, chosen) in rows.items()
            if hits is not None
        }

    def measured(
        self,
        case: BackdoorCase,
        name: str,
        model: InstrumentedModel,
        judged: PoisonedClips,
        seed: int,
    ) -> MeasuredSet:
        """Measure a set, or read its kept measurements."""
        return MeasuredSet.kept(
            self.out / f"{case.name}.{name}.measured",
            self._identity(case, judged, self.plan.measuring),
            lambda: measure_set(
                model, judged.clips.samples, self.plan, seed=seed, small=name == "train"
            ),
        )

    def baselines(
        self,
        case: BackdoorCase,
        model: InstrumentedModel,
        judged: PoisonedClips,
        measured: MeasuredSet,
        seed: int,
        *,
        missing: bool,
    ) -> dict[str, Any]:
        """Run the baselines if they are ``missing``, or read their kept verdicts."""
        path = self.out / f"{case.name}.baselines.json"
        identity = self._identity(case, judged, self.plan.asking)
        if not path.exists():
            if not missing:
                return {}
            verdicts = judge_baselines(
                model,
                judged,
                measured.embeddings,
                self.clean_inputs,
                self.plan,
                train=lambda clips: case.training.train(clips, case.seed, self.progress),
                seed=seed,
            )
            kept = json.dumps({"identity": identity, "verdicts": verdicts}, indent=1)
            write_atomic(path, kept.encode())
        kept_before = json.loads(path.read_text(encoding="utf-8"))
        if kept_before["identity"] != identity:
            raise ResumeError(
                f"{path} was made with other settings; use another --out, or remove it"
            )
        return dict(kept_before["verdicts"])

    def _identity(self, case: BackdoorCase, judged: PoisonedClips, plan: Mapping[str, Any]) -> str:
        """Return a hash of the clips and all settings."""
        settings = json.dumps([asdict(case), plan], sort_keys=True)
        digest = hashlib.sha256(settings.encode())
        digest.update(judged.clips.samples.numpy().tobytes())
        return digest.hexdigest()
