r"""Poison AudioNet's training clips, train it, and judge who finds the poison; write one JSON.

    python backdoor_study.py hparams/backdoor_study.yaml --data_folder=/path/to/LibriSpeech \
        --split_file=split.csv --out=backdoors --results=../../../docs/results/backdoors.json

Models and judgements are kept in ``--out``, one of each a trigger and seed; an interrupted run goes
on there. ``--only-finished`` makes none, and reports on those that are there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from nip_audio import __version__
from nip_audio.audio.features import LogMel
from nip_audio.audio.triggers import TRIGGERS
from nip_audio.core.state import file_sha256, write_atomic
from nip_audio.detectors.backdoor import BackdoorGroups
from nip_audio.errors import NipAudioError, ResumeError
from nip_audio.evaluation.backdoor_judging import JudgingPlan, judge_set
from nip_audio.evaluation.backdoor_models import NO_TRIGGER, BackdoorCase, poisoned_by, success_of
from nip_audio.evaluation.poisoning import Clips, read_clips
from nip_audio.evaluation.seeds import seed_of
from nip_audio.evaluation.statistics import proportion
from nip_audio.integrations.poisoned_training import ShortTraining

STRIP_CLEAN = 100
VERSION_OF_ART = "adversarial-robustness-toolbox"


def cases(plan: Mapping[str, Any]) -> Iterator[BackdoorCase]:
    """All models of the study; the first seed of each comes first."""
    training = ShortTraining(**plan["training"])
    seeds = {trigger: plan["seeds"] for trigger in TRIGGERS} | {NO_TRIGGER: plan["clean_seeds"]}
    found = [(turn, t, s) for t, row in seeds.items() for turn, s in enumerate(row)]
    for _, trigger, seed in sorted(found, key=lambda f: f[0]):
        yield BackdoorCase(trigger, seed, plan["share"], training)


def judge(
    case: BackdoorCase,
    train: Clips,
    test: Clips,
    clean_inputs: Tensor,
    plan: JudgingPlan,
    out: Path,
) -> dict[str, Any]:
    """Train, or take what was trained, and measure attack and defences."""
    poisoned = poisoned_by(case, train)
    model = case.model(poisoned, out)
    reached = success_of(model, case, test, poisoned.target)
    speakers = [test.speakers[int(i)] for i in test.labels]
    others = [speakers[int(i)] for i in reached.others]
    enrolment = poisoned_by(case, test, salt="enrolment", target=poisoned.target)
    seed = seed_of("judging", case.seed)
    return {
        "trigger": case.trigger,
        "seed": case.seed,
        "target": train.speakers[poisoned.target],
        "snr_db": poisoned.median_snr_db,
        "accuracy": proportion(reached.accuracy.numpy(), speakers, seed=seed).to_json(),
        "attack": None
        if reached.attack is None
        else proportion(reached.attack.numpy(), others, seed=seed).to_json(),
        "without": proportion(reached.without.numpy(), others, seed=seed).to_json(),
        "train": judge_set(
            model, poisoned, plan, seed=seed, clean_inputs=clean_inputs, clustering=True
        ),
        "enrolment": judge_set(model, enrolment, plan, seed=seed),
    }


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--data_folder", type=Path, required=True)
    parser.add_argument("--split_file", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="where models are kept")
    parser.add_argument("--results", type=Path, help="JSON to write of all that is judged")
    parser.add_argument("--only-finished", action="store_true", help="judge nothing more")
    options = parser.parse_args()
    plan = yaml.safe_load(options.config.read_text(encoding="utf-8"))
    options.out.mkdir(parents=True, exist_ok=True)
    judging = JudgingPlan()
    identity = {
        "plan": plan,
        "judging": asdict(judging),
        "detector": BackdoorGroups().get_params(),
        "split_sha256": file_sha256(options.split_file),
    }
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
    done, unfinished = [], []
    for case in cases(plan):
        path = options.out / f"{case.name}.json"
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        if kept is not None and kept["identity"] != json.loads(json.dumps(identity)):
            raise ResumeError(f"{path} is of other settings; use another --out, or remove it")
        if kept is None and options.only_finished:
            unfinished.append(case.name)
            continue
        if kept is None:
            started = time.perf_counter()
            found = judge(case, sets["train"], sets["test"], clean[0], judging, options.out)
            found["seconds"] = round(time.perf_counter() - started)
            kept = {"identity": identity, "found": found}
            write_atomic(path, (json.dumps(kept, indent=1, allow_nan=False) + "\n").encode())
        done.append(kept["found"])
        print(json.dumps(summary(kept["found"]), ensure_ascii=False), file=sys.stderr, flush=True)
    if options.results is None:
        return
    results = identity | {
        "nip_audio": __version__,
        "versions": {n: version(n) for n in ("torch", VERSION_OF_ART)},
        "counts": {role: len(clips) for role, clips in sets.items()},
        "speakers": len(sets["train"].speakers),
        "cases": done,
        "unfinished": unfinished,
    }
    text = json.dumps(results, indent=1, allow_nan=False) + "\n"
    write_atomic(options.results, text.encode(), force=True)


def summary(found: Mapping[str, Any]) -> dict[str, Any]:
    """What to say of a case while the study runs."""
    ours = found["train"]["NCCR, grouped"]
    return {
        "case": f"{found['trigger']} {found['seed']}",
        "attack": found["attack"] and found["attack"]["value"],
        "accuracy": found["accuracy"]["value"],
        "alarm": [ours["alarm of target"], ours["highest other alarm"]],
        "f1": ours.get("f1"),
        "enrolment f1": found["enrolment"]["NCCR, grouped"].get("f1"),
    }


if __name__ == "__main__":
    try:
        main()
    except (NipAudioError, FileNotFoundError) as err:
        sys.exit(str(err))
