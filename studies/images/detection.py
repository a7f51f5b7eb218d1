r"""Measure detection of attacked images by the neuron coverage change rate (NCCR).

    python -m studies.images.detection studies/images/detection.yaml --data-folder FOLDER \
        --system mnist --out OUT --results FILE

New results are added to FILE, which keeps its other results.
"""

from __future__ import annotations

import argparse
from typing import Any

from nip_audio.core.nccr import NccrConfig
from nip_audio.core.noise import Noise
from nip_audio.evaluation.measured import RowBank
from studies.images.detection_study import ImageDetection
from studies.images.options import read_plan, study_parser, tell
from studies.images.results import add_result
from studies.images.systems import ImageAttackPlan, image_system


def main() -> None:
    """Read the command line, measure, and add to the results."""
    options = study_parser(__doc__).parse_args()
    plan = read_plan(options)
    chosen, seed = plan["systems"][options.system], plan["seed"]
    found = measure(chosen, options, seed)
    add_result(options.results, ["detection", options.system], found)


def measure(chosen: dict[str, Any], options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Set up the study and run it."""
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
        progress=tell,
    )
    plans = [ImageAttackPlan.from_json(one) for one in chosen["attacks"]]
    card = system.pretrained.card
    return {"model": card.name, "seed": seed, "card": card.data["metrics"], **study.results(plans)}


if __name__ == "__main__":
    main()
