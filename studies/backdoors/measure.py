r"""Poison AudioNet's training clips, train it, and test which detectors find the poison.

    python -m studies.backdoors.measure studies/backdoors/backdoors.yaml \
        --data_folder=/path/to/LibriSpeech \
        --split_file=split.csv --out=backdoors --results=studies/results/backdoors.json

Results are written as one JSON. Models, measurements and the baselines' verdicts are kept in
``--out``, where an interrupted run continues. Three flags limit what is made anew; unfinished cases
are then listed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from nip_audio import __version__
from nip_audio.audio.features import LogMel
from nip_audio.core.state import file_sha256
from studies._lib.command import command, read_yaml, run, tell, write_results
from studies.backdoors.judging import JudgingPlan
from studies.backdoors.models import NO_TRIGGER, BackdoorCase
from studies.backdoors.poisoned_training import ShortTraining
from studies.backdoors.poisoning import read_clips
from studies.backdoors.study import BackdoorStudy
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
    study = BackdoorStudy(sets, clean[0], judging, options.out)
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
