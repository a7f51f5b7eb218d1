r"""Measure how much of a verification system's lost accuracy purifiers recover; write one JSON.

    python -m studies.verification.measure studies/verification/verification.yaml \
        --data-root LibriSpeech --data-split split.csv \
        --out verification --results studies/results/verification.json

The attacked trials do not depend on the purifiers; they are made first, in ``--out``, where an
interrupted run continues. Without ``--results`` only these are made, and no purifier is needed.
``--only-finished`` makes no attacks and reports on the finished ones.
"""

from __future__ import annotations

import json
import platform
import time
from importlib.metadata import version
from pathlib import Path

import torch

from nip_audio import __version__
from nip_audio.core.state import require_new
from studies._lib.command import evaluation_command, evaluation_of, run, tell, write_results
from studies.verification.study import VerificationStudy


def main() -> None:
    """Run the study as the command line says."""
    parser = evaluation_command(__doc__, "out")
    parser.add_argument("--results", type=Path, help="JSON to write; without, only attack")
    parser.add_argument("--only-finished", action="store_true")
    options = parser.parse_args()
    if options.results is not None:
        require_new(options.results, force=True)
    study = VerificationStudy.build(evaluation_of(options))
    cells, unfinished = [], []
    for cell in (*study.cells(), *study.controls()):
        attack = cell.attack
        if options.only_finished and not attack.finished(options.out):
            unfinished.append(cell.describe())
            continue
        tell(json.dumps(cell.describe(), ensure_ascii=False))
        cells.append((cell, attack.make(options.out)))
    if options.results is None:
        return
    started = time.perf_counter()
    defences = study.defences()
    results = {
        **study.describe(defences),
        "nip_audio": __version__,
        "versions": {name: version(name) for name in ("torch", "foolbox")},
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "cells": [study.judge(cell, made, defences) for cell, made in cells],
        "unfinished": unfinished,
    }
    results["judged_in_s"] = round(time.perf_counter() - started)
    write_results(options.results, results)


if __name__ == "__main__":
    run(main)
