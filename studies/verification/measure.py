r"""Measure how much of a verification system's lost accuracy purifiers recover; write one JSON.

    python -m studies.verification.measure studies/verification/verification.yaml \
        --data-root LibriSpeech --data-split split.csv \
        --out verification --results studies/results/verification.json

The attacked trials do not depend on the purifiers; they are made first, in ``--out``, where an
interrupted run continues. Without ``--results`` only these are made, and no purifier is needed.
``--only-finished`` makes no attacks and reports on the finished ones.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch

from nip_audio import __version__
from nip_audio.core.state import require_new, write_atomic
from nip_audio.errors import NipAudioError
from nip_audio.evaluation.config import read_config
from studies.verification.study import VerificationStudy


def main() -> None:
    """Run the study as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--data-split", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder that keeps attacked trials")
    parser.add_argument("--results", type=Path, help="JSON to write; without, only attack")
    parser.add_argument("--only-finished", action="store_true")
    options = parser.parse_args()
    if options.results is not None:
        require_new(options.results, force=True)
    config = read_config(options.config, data_root=options.data_root, split=options.data_split)
    study = VerificationStudy.build(config)
    cells, unfinished = [], []
    for cell in (*study.cells(), *study.controls()):
        attack = cell.attack
        if options.only_finished and not attack.finished(options.out):
            unfinished.append(cell.describe())
            continue
        print(json.dumps(cell.describe(), ensure_ascii=False), file=sys.stderr)
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
    text = json.dumps(results, indent=1, allow_nan=False) + "\n"
    write_atomic(options.results, text.encode(), force=True)


if __name__ == "__main__":
    try:
        main()
    except (NipAudioError, FileNotFoundError) as err:
        sys.exit(str(err))
