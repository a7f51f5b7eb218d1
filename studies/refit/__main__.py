"""Redo everything that depends on the weights of the shipped models, step by step.

    make refit DATA=LibriSpeech
    python -m studies.refit --data LibriSpeech --work WORK [--only STEP …] [--list]

The steps stand in steps.yaml, each a few lines of shell. A step is done when all of its lines are,
and it is due again when its lines have changed, or the weights or companions of a model that it
needs. Killed and started again, the command goes on with the step that was interrupted, and steps
that keep their own progress go on inside. A step that fails ends the command.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nip_audio.core.state import file_sha256, write_atomic
from nip_audio.errors import InputError
from studies._lib.command import read_yaml, run, tell

ROOT = Path(__file__).parents[2]
PRETRAINED = ROOT / "pretrained"
STEPS = Path(__file__).with_name("steps.yaml")


@dataclass(frozen=True)
class Step:
    """Some commands, and what they need.

    Attributes:
        name: Name of the step.
        run: Lines of shell. ``$DATA`` is LibriSpeech, ``$WORK`` a folder to keep things in.
        models: Names of the shipped models that it needs.
        files: Files of a model that matter; of the companions only those that are named here.
    """

    name: str
    run: str
    models: tuple[str, ...]
    files: tuple[str, ...]

    def state(self, pretrained: Path) -> str:
        """Return a hash of the commands and of the files that they depend on."""
        parts = [self.run]
        for model in self.models:
            for file in self.files:
                path = pretrained / model / file
                parts.append(file_sha256(path) if path.exists() else f"no {path.name}")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def read_steps(path: Path, pretrained: Path) -> list[Step]:
    """Read the steps.

    A step with ``each`` stands for one step a model, whose name is ``$MODEL``.

    Raises:
        InputError: If a step has no commands, or needs a model that is not shipped.
    """
    plan = read_yaml(path)
    steps = []
    for name, one in plan["steps"].items():
        if not one.get("run"):
            raise InputError(f"{path}: step {name} has no commands; give it run")
        files = (*plan["weights"], *one.get("after", ()))
        models = tuple(one.get("each") or one.get("models", ()))
        for model in models:
            if not (pretrained / model).is_dir():
                raise InputError(f"{path}: step {name} needs {model}, which is not shipped")
        if one.get("each"):
            steps += [
                Step(f"{name}:{model}", f"MODEL={model}\n{one['run']}", (model,), files)
                for model in models
            ]
        else:
            steps.append(Step(name, one["run"], models, files))
    return steps


def is_done(step: Step, stamps: Path, pretrained: Path) -> bool:
    """Tell whether a step was done with these commands and these files."""
    stamp = stamps / f"{step.name}.json"
    if not stamp.exists():
        return False
    state: str = json.loads(stamp.read_text(encoding="utf-8"))["state"]
    return state == step.state(pretrained)


def do(step: Step, stamps: Path, pretrained: Path, places: Mapping[str, str]) -> None:
    """Run a step, and keep that it was done.

    Raises:
        InputError: If a command of it fails.
    """
    before, started = step.state(pretrained), time.monotonic()
    shell = ["bash", "-euo", "pipefail", "-c", step.run]
    done = subprocess.run(shell, check=False, cwd=ROOT, env=os.environ | places)
    if done.returncode != 0:
        raise InputError(
            f"step {step.name} ended with {done.returncode}; see what it printed, mend it, and "
            "give the same command again"
        )
    kept = {"state": before, "minutes": round((time.monotonic() - started) / 60, 1)}
    stamps.mkdir(parents=True, exist_ok=True)
    text = json.dumps(kept | {"run": step.run}, indent=1) + "\n"
    write_atomic(stamps / f"{step.name}.json", text.encode(), force=True)
    tell(f"{step.name}: done in {kept['minutes']} minutes")


def chosen(steps: Sequence[Step], names: Sequence[str]) -> list[Step]:
    """Return the steps of these names, or all; a name without its model means every model.

    Raises:
        InputError: If there is no such step.
    """
    found = [s for s in steps if not names or s.name in names or s.name.split(":")[0] in names]
    known = {s.name for s in steps} | {s.name.split(":")[0] for s in steps}
    if unknown := sorted(set(names) - known):
        raise InputError(f"there is no step {', '.join(unknown)}; --list names them all")
    return found


def main() -> None:
    """Do what is due."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="LibriSpeech, with split.csv")
    parser.add_argument("--work", type=Path, default=ROOT / "results" / "refit")
    parser.add_argument("--only", nargs="+", default=[], metavar="STEP", help="default: all")
    parser.add_argument("--list", action="store_true", help="tell what is due, and do nothing")
    options = parser.parse_args()
    data, work = options.data.resolve(), options.work.resolve()
    if not (data / "split.csv").is_file():
        raise InputError(f"{data} has no split.csv, expected LibriSpeech with its roles")
    python = Path(sys.executable)
    path = f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    places = {"DATA": str(data), "WORK": str(work), "PATH": path}
    for step in chosen(read_steps(STEPS, PRETRAINED), options.only):
        ready = is_done(step, work / "done", PRETRAINED)
        if options.list:
            print(f"{'done' if ready else 'due '}  {step.name}")
        elif not ready:
            tell(f"{step.name}: started")
            do(step, work / "done", PRETRAINED, places)


if __name__ == "__main__":
    run(main)
