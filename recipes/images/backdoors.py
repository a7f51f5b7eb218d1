"""Poison, train, and find the poison, on pictures.

    python backdoors.py backdoors.yaml --data-folder FOLDER --system gtsrb --out OUT --results FILE

What is measured is added to the results; what else is in them stays.
"""

from __future__ import annotations

import json

from options import read_plan, study_parser, tell
from results import add_result

from nip_audio.evaluation.image_backdoors import NO_TRIGGER, ImageBackdoors
from nip_audio.image.datasets import load_images
from nip_audio.image.triggers import TRIGGERS
from nip_audio.integrations.image_training import ImageTraining


def main() -> None:
    """Read the command line, measure, add to the results."""
    options = study_parser(__doc__).parse_args()
    plan = read_plan(options)
    chosen, side = plan["systems"][options.system], plan["size"]
    train, test = (
        load_images(chosen["data"], role, folder=options.data_folder).resized(side, side)
        for role in ("train", "test")
    )
    study = ImageBackdoors(
        train,
        test,
        ImageTraining.from_hparams(chosen["training"]),
        width=chosen["width"],
        share=plan["share"],
        progress=tell,
    )
    found = []
    for seed in plan["seeds"]:
        for trigger in (*TRIGGERS, NO_TRIGGER):
            options.out.mkdir(parents=True, exist_ok=True)
            path = options.out / f"{options.system}-{trigger.split(',')[0]}-{seed}.json"
            if not path.exists():
                path.write_text(json.dumps(study.result(trigger, seed=seed)), encoding="utf-8")
            found.append(json.loads(path.read_text(encoding="utf-8")))
            add_result(options.results, ["backdoors", options.system], found)


if __name__ == "__main__":
    main()
