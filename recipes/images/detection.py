"""Measure NCCR detection on pictures.

    python detection.py detection.yaml --data-folder FOLDER --system mnist --out OUT --results FILE

What is measured is added to the results; what else is in them stays.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml
from results import add_result

from nip_audio.core.nccr import NccrConfig
from nip_audio.core.noise import Noise
from nip_audio.evaluation.image_detection import ImageDetection
from nip_audio.evaluation.image_systems import ImageAttackPlan, image_system
from nip_audio.evaluation.measured import RowBank


def main() -> None:
    """Read the command line, measure, add to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--data-folder", type=Path)
    parser.add_argument("--system", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    options = parser.parse_args()
    plan = yaml.safe_load(options.plan.read_text(encoding="utf-8"))
    chosen, seed = plan["systems"][options.system], plan["seed"]
    found = measure(chosen, options, seed)
    add_result(options.results, ["detection", options.system], found)


def measure(chosen: dict[str, Any], options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Set the study up and run it."""
    system = image_system(
        chosen["model"],
        chosen["data"],
        data_folder=options.data_folder,
        folder=options.out / "attacked",
        seed=seed,
    )
    noises = tuple(Noise(**noise) for noise in chosen["noises"])
    config = NccrConfig(system.pretrained.card.default_taps, noises, chosen["draws"])
    study = ImageDetection(
        system=system,
        bank=RowBank(system, options.out / "rows", seed),
        config=config,
        own={
            family: [ImageAttackPlan.from_json(one) for one in plans]
            for family, plans in chosen["own"].items()
        },
        attack_step=chosen["attack_step"],
        **chosen["counts"],
        progress=lambda what: print(what, file=sys.stderr, flush=True),
    )
    plans = [ImageAttackPlan.from_json(one) for one in chosen["attacks"]]
    card = system.pretrained.card
    return {"model": card.name, "seed": seed, "card": card.data["metrics"], **study.results(plans)}


if __name__ == "__main__":
    main()
