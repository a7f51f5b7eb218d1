r"""Poison AudioNet's training clips, train it, and test which detectors find the poison.

    python -m studies.backdoors.measure studies/backdoors/backdoors.yaml \
        --data_folder=/path/to/LibriSpeech \
        --split_file=split.csv --out=backdoors --results=studies/results/backdoors.json

Results are written as one JSON. Models, measurements and the baselines' verdicts are kept in
``--out``, where an interrupted run continues. Three flags limit what is made anew; unfinished cases
are then listed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from nip_audio import __version__
from nip_audio.audio.features import LogMel
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.state import file_sha256, write_atomic
from nip_audio.errors import ResumeError
from nip_audio.evaluation.seeds import seed_of
from nip_audio.evaluation.statistics import proportion
from studies._lib.command import command, read_yaml, run, tell, write_results
from studies.backdoors.judging import (
    JudgingPlan,
    MeasuredSet,
    judge_baselines,
    judge_set,
    measure_set,
)
from studies.backdoors.models import NO_TRIGGER, BackdoorCase, poisoned_by, success_of
from studies.backdoors.poisoned_training import ShortTraining
from studies.backdoors.poisoning import Clips, PoisonedClips, read_clips
from studies.backdoors.triggers import TRIGGERS

STRIP_CLEAN = 100
VERSION_OF_ART = "adversarial-robustness-toolbox"


def cases(plan: Mapping[str, Any]) -> Iterator[BackdoorCase]:
    """List all models of the study; the first seed of each trigger comes first."""
    training = ShortTraining(**plan["training"])
    seeds = {trigger: plan["seeds"] for trigger in TRIGGERS} | {NO_TRIGGER: plan["clean_seeds"]}
    found = [(turn, t, s) for t, row in seeds.items() for turn, s in enumerate(row)]
    for _, trigger, seed in sorted(found, key=lambda f: f[0]):
        yield BackdoorCase(trigger, seed, plan["share"], training)


@dataclass(frozen=True)
class Study:
    """Data and settings that all cases share.

    Attributes:
        sets: Clips by role.
        clean_inputs: (m, F, T) model inputs of the ``calibrate`` role, for STRIP.
        plan: Settings of the detectors.
        out: Folder where models, measurements and the baselines' verdicts are kept.
    """

    sets: Mapping[str, Clips]
    clean_inputs: Tensor
    plan: JudgingPlan
    out: Path

    def judge(self, case: BackdoorCase, *, baselines: bool) -> dict[str, Any]:
        """Train a case or read its kept model, and measure attack and defences."""
        poisoned = poisoned_by(case, self.sets["train"])
        model = case.model(poisoned, self.out)
        test = self.sets["test"]
        enrolment = poisoned_by(case, test, salt="enrolment", target=poisoned.target)
        seed = seed_of("judging", case.seed)
        found = {
            "trigger": case.trigger,
            "seed": case.seed,
            "target": test.speakers[poisoned.target],
            "snr_db": poisoned.median_snr_db,
            "success": self.success(case, model, poisoned.target, seed),
        }
        for name, judged in (("train", poisoned), ("enrolment", enrolment)):
            measured = self.measured(case, name, model, judged, seed)
            found[name] = judge_set(model, judged, measured, self.plan)
            if name == "train":
                found[name] |= self.baselines(
                    case, model, judged, measured, seed, missing=baselines
                )
        return found

    def success(
        self, case: BackdoorCase, model: InstrumentedModel, target: int, seed: int
    ) -> dict[str, Any]:
        """Measure accuracy and attack success, with intervals over speakers."""
        test = self.sets["test"]
        reached = success_of(model, case, test, target)
        speakers = [test.speakers[int(i)] for i in test.labels]
        others = [speakers[int(i)] for i in reached.others]
        rows = {"accuracy": (reached.accuracy, speakers), "without": (reached.without, others)}
        if reached.attack is not None:
            rows["attack"] = (reached.attack, others)
        return {
            name: proportion(hits.numpy(), groups, seed=seed).to_json()
            for name, (hits, groups) in rows.items()
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
                model, judged, measured.embeddings, self.clean_inputs, self.plan, seed=seed
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


def main() -> None:
    """Run the study as the command line says."""
    needed = ("data_folder", "split_file", "out")
    parser = command(__doc__, "config", needed=needed, paths=("results",))
    parser.add_argument("--only-trained", action="store_true", help="train nothing more")
    parser.add_argument("--only-measured", action="store_true", help="measure nothing more")
    parser.add_argument("--no-baselines", action="store_true", help="run no more baselines")
    options = parser.parse_args()
    plan = read_yaml(options.config)
    options.out.mkdir(parents=True, exist_ok=True)
    judging = JudgingPlan()
    sets = {
        role: read_clips(
            options.data_folder,
            options.split_file,
            subset=plan["subset"],
            role=role,
            crop_s=plan["crop_s"],
        )
        for role in ("train", "calibrate", "test")
    }
    front_end = LogMel(n_mels=ShortTraining().n_mels)
    clean = front_end(sets["calibrate"].samples[:: max(1, len(sets["calibrate"]) // STRIP_CLEAN)])
    study = Study(sets, clean[0], judging, options.out)
    done, unfinished = [], []
    for case in cases(plan):
        trained = (options.out / f"{case.name}.safetensors").exists()
        measured = (options.out / f"{case.name}.enrolment.measured").exists()
        if (options.only_trained and not trained) or (options.only_measured and not measured):
            unfinished.append(f"{case.trigger} {case.seed}")
            continue
        asked = case.seed in plan["baselines"] and not options.no_baselines
        found = study.judge(case, baselines=asked)
        done.append(found)
        tell(json.dumps(summary(found), ensure_ascii=False))
    if options.results is None:
        return
    results = {
        "plan": plan,
        "judging": asdict(judging),
        "split_sha256": file_sha256(options.split_file),
        "nip_audio": __version__,
        "versions": {n: version(n) for n in ("torch", VERSION_OF_ART)},
        "counts": {role: len(clips) for role, clips in sets.items()},
        "strip_clean": len(clean[0]),
        "speakers": len(sets["train"].speakers),
        "cases": done,
        "unfinished": unfinished,
    }
    write_results(options.results, results)


def summary(found: Mapping[str, Any]) -> dict[str, Any]:
    """Summarise a case for the progress output."""
    ours = found["train"]["NCCR, grouped"]
    return {
        "case": f"{found['trigger']} {found['seed']}",
        **{name: interval["value"] for name, interval in found["success"].items()},
        "alarm": [ours["alarm of target"], ours["highest other alarm"]],
        "f1": ours.get("f1"),
        "enrolment f1": found["enrolment"]["NCCR, grouped"].get("f1"),
    }


if __name__ == "__main__":
    run(main)
