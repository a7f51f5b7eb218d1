"""Study the published NIP on adversarial sets that an evaluation has made.

python -m studies.nip.neurons.measure studies/nip/neurons/neurons.yaml studies/results/nip.json \
    studies/results/nip_studies.json --data-root LibriSpeech --data-split split.csv \
    --sets evaluation

NIP is neuron-level inverse perturbation. No attack is made here, and no setting is tuned.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nip_audio.evaluation.runner import Runner
from studies._lib.command import evaluation_command, evaluation_of, run, write_results
from studies.nip.neurons.defended import (
    study_activation,
    study_efficiency,
    study_oracle,
    study_sweeps,
)
from studies.nip.neurons.influence import (
    study_consistency,
    study_distributions,
    study_influence,
    study_template,
)
from studies.nip.neurons.subject import Subject, read_subjects

STUDIES: Mapping[str, Callable[[Subject], Any]] = {
    "oracle": study_oracle,
    "sweeps": study_sweeps,
    "influence": study_influence,
    "template": study_template,
    "activation": study_activation,
    "distributions": study_distributions,
    "efficiency": study_efficiency,
}


def study(subject: Subject, chosen: Sequence[str]) -> dict[str, Any]:
    """Run the chosen studies on one system."""
    found: dict[str, Any] = subject.describe()
    for name in chosen:
        start = time.process_time()
        found[name] = STUDIES[name](subject)
        found[name + "_cpu_s"] = round(time.process_time() - start, 1)
        print(f"{subject.name}: {name}, {found[name + '_cpu_s']} CPU seconds", flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all studies and write their results."""
    parser = evaluation_command(__doc__, "sets")
    parser.add_argument("evaluated", type=Path, help="results of an evaluation with defences")
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=[*STUDIES], default=[*STUDIES])
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    config = evaluation_of(args)
    evaluated = json.loads(args.evaluated.read_text(encoding="utf-8"))
    results = {
        **Runner(config, args.sets).provenance(),
        "systems": {s.name: study(s, args.only) for s in read_subjects(config, args.sets)},
        "consistency": study_consistency(evaluated, seed=config.seed),
        "cpu_s": round(time.process_time(), 1),
    }
    write_results(args.out, results)


if __name__ == "__main__":
    run(main)
