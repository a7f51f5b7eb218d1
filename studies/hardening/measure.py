"""Screen every case, for docs/results/hardening.md.

    python -m studies.hardening.measure LABEL --data-folder DATA --work WORK --results RESULTS.json

LABEL says which version is measured: ``before`` or ``after``. The version is the one that is
imported; to measure an older one, copy this study into a checkout of it. The command is run as
users run it, once for each case; what the results hold already is not measured again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile as sf
import torch

from nip_audio import load_pretrained
from nip_audio.attacks.registry import make_attack
from studies._lib.command import add_result, command, run, tell
from studies.detection.examples import Examples
from studies.hardening.cases import CASES, RATE, Case, Outcome, Speech

MODEL = "xvector-libri251"
CLIPS = 60
ATTACKED = 4
EPS = 0.002
ROOT = Path(__file__).resolve().parents[2]


def speech(root: Path, work: Path) -> Speech:
    """Return clips of different speakers; the attacked ones are made once and kept."""
    examples = Examples(load_pretrained(MODEL), root, work, CLIPS)
    clean = [clip.double().numpy() for clip in examples.clips[0]]
    path = work / "attacked.wav"
    if not path.exists():
        rows = list(range(ATTACKED))
        attack = make_attack("pgd", eps=EPS, settings={"steps": 20})
        made = examples.run(attack, "hardening", "accept", rows)
        work.mkdir(parents=True, exist_ok=True)
        sf.write(path, made.numpy().T, RATE, subtype="PCM_16")
    attacked = np.ascontiguousarray(sf.read(path)[0].T)
    return Speech(clean, list(attacked))


def screened(case: Case, folder: Path, out: Path) -> Outcome:
    """Screen a folder as a user does."""
    program = Path(sys.executable).with_name("nip-audio")
    line = [str(program), "screen", "." if case.inside else str(folder)]
    line += ["--model", MODEL, "--fpr", "0.01", "--out", str(out), *case.options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "400"}
    done = subprocess.run(
        line,
        cwd=folder if case.inside else ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    path = out / "results.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    printed = " ".join((done.stdout + done.stderr).split())
    return Outcome(folder, done.returncode, [json.loads(one) for one in lines], printed)


def judged(case: Case, clips: Speech, work: Path) -> Outcome:
    """Make a case and screen it."""
    folder, out = work / "folder", work / "out"
    for path in (folder, out):
        shutil.rmtree(path, ignore_errors=True)
    folder.mkdir(parents=True)
    case.make(folder, clips)
    outcome = screened(case, folder, out)
    if case.then is not None:
        case.then(folder, clips)
        outcome = screened(case, folder, out)
    return outcome


def main() -> None:
    """Screen every case."""
    parser = command(__doc__, needed=("data-folder", "results", "work"))
    parser.add_argument("label", choices=("before", "after"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    clips = speech(options.data_folder, options.work)
    kept = json.loads(options.results.read_text()) if options.results.exists() else {"cases": {}}
    for case in CASES:
        if options.label in kept["cases"].get(case.title, {}):
            continue
        outcome = judged(case, clips, options.work / options.label)
        found = {
            "right": case.is_right(outcome),
            "exit_code": outcome.exit_code,
            "verdicts": sorted(record["verdict"] for record in outcome.records),
            "risks": sorted(outcome.verdicts()),
            "heard_s": outcome.heard_s(),
        }
        tell(f"{case.title}: {found}")
        add_result(options.results, ["cases", case.title, options.label], found)


if __name__ == "__main__":
    run(main)
