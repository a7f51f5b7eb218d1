r"""Poison, train, and find the poison, on pictures.

    python -m studies.images.backdoors studies/images/backdoors.yaml --data-folder FOLDER \
        --system gtsrb --out OUT --results FILE

What is measured is added to the results; what else is in them stays. Models and measurements are
kept in OUT: interrupted and started again, it trains and measures what is missing, and judges all.
"""

from __future__ import annotations

from nip_audio.image.datasets import load_images
from nip_audio.training.image_training import ImageTraining
from studies.images.backdoor_study import NO_TRIGGER, ImageBackdoors
from studies.images.options import read_plan, study_parser, tell
from studies.images.results import add_result
from studies.images.triggers import TRIGGERS


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
        kept=options.out,
        progress=tell,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    found = []
    for seed in plan["seeds"]:
        for trigger in (*TRIGGERS, NO_TRIGGER):
            found.append(study.result(trigger, seed=seed))
            add_result(options.results, ["backdoors", options.system], found)


if __name__ == "__main__":
    main()
