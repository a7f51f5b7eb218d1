r"""Measure NIP (neuron-level inverse perturbation) and other defences on images.

    python -m studies.images.nip studies/images/nip.yaml --data-folder FOLDER --system mnist \
        --out OUT --results FILE

New results are added to FILE, which keeps its other results.
"""

from __future__ import annotations

from pathlib import Path

from nip_audio.image.datasets import load_images
from nip_audio.purifiers.nip_guided import GuidedNip
from studies.images.options import read_plan, study_parser, tell
from studies.images.purification import ImageNip, image_defences
from studies.images.results import add_result
from studies.images.systems import ImageAttackPlan, image_system


def main() -> None:
    """Read the command line, measure, and add to the results."""
    parser = study_parser(__doc__)
    parser.add_argument("--purifier", type=Path, help="default: the model's own")
    options = parser.parse_args()
    plan = read_plan(options)
    chosen, seed = plan["systems"][options.system], plan["seed"]
    system = image_system(
        chosen["model"],
        chosen["data"],
        data_folder=options.data_folder,
        folder=options.out / "attacked",
        seed=seed,
    )
    card = system.pretrained.card
    _, rows, columns = card.image_shape
    train = load_images(chosen["data"], "train", folder=options.data_folder).resized(rows, columns)
    guided = GuidedNip.load(options.purifier or card.purifier_path, model_id=system.identity)
    layer = card.default_taps[-1]
    defences = image_defences(
        system, train.pixels, guided=guided, layer=layer, candidates=plan["candidates"], seed=seed
    )
    study = ImageNip(system, defences, layer, progress=tell)
    plans = [ImageAttackPlan.from_json(one) for one in chosen["attacks"]]
    facts = {"model": card.name, "seed": seed}
    keys = ["nip", options.system]
    found = study.results(plans, lambda part: add_result(options.results, keys, {**facts, **part}))
    knowing = [ImageAttackPlan.from_json(one) for one in chosen["adaptive"]]
    found["adaptive"] = study.adaptive(knowing)
    add_result(options.results, keys, {**facts, **found})


if __name__ == "__main__":
    main()
