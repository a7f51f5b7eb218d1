r"""Poison sets of images, train on them, and test which detectors find the poison.

    python -m studies.images.backdoors studies/images/backdoors.yaml --data-folder FOLDER \
        --system gtsrb --out OUT --results FILE

New results are added to FILE, which keeps its other results. Models and measurements are kept in
OUT; a run that was interrupted and is started again trains and measures only what is missing.
"""

from __future__ import annotations

from nip_audio.image.datasets import load_images
from nip_audio.training.image_training import ImageTraining
from studies.images.backdoor_study import NO_TRIGGER, ImageBackdoors
from studies.images.options import read_plan, study_parser, tell
from studies.images.results import add_result
from studies.images.triggers import TRIGGERS


def main() -> None:
    """Read the command line, measure, and add to the results."""
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
