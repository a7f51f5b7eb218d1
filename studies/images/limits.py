r"""Measure defences of images where NIP (neuron-level inverse perturbation) is said to be weak.

    python -m studies.images.limits studies/images/limits.yaml --study NAME --data-folder F \
        --system mnist --out F --results FILE

The studies are ``spatial``, with rotations and translations, and ``elasticity``, with increasing
changes. New results are added to FILE, which keeps its other results. A model that comes without a
purifier is measured without guided NIP.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nip_audio.attacks.spatial import Spatial
from nip_audio.evaluation.statistics import proportion
from nip_audio.image.datasets import load_images
from nip_audio.purifiers.nip_guided import GuidedNip
from studies.images.limits_study import ShippedDetector, moved_at_random
from studies.images.options import read_plan, study_parser, tell
from studies.images.purification import ImageNip, image_defences
from studies.images.results import add_result
from studies.images.systems import ImageAttackPlan, ImageSystem, image_system


def main() -> None:
    """Read the command line, measure, and add to the results."""
    parser = study_parser(__doc__)
    parser.add_argument("--study", choices=("spatial", "elasticity"), required=True)
    parser.add_argument("--purifier", type=Path, help="default: the model's own, if it has one")
    options = parser.parse_args()
    plan = read_plan(options)
    chosen, seed = plan["systems"][options.system], plan["seed"]
    folder = options.out / "attacked"
    system = image_system(
        *(chosen["model"], chosen["data"]),
        data_folder=options.data_folder,
        folder=folder,
        seed=seed,
    )
    study = defences_of(system, chosen, plan["candidates"], options.purifier, options.data_folder)
    plans = [ImageAttackPlan.from_json(one) for one in chosen[options.study]]
    found = {"model": system.name, "seed": seed, **study.results(plans)}
    if options.study == "spatial":
        found |= beside(system, plans, chosen["detector_clean"])
    add_result(options.results, [options.study, options.system], found)


def defences_of(
    system: ImageSystem,
    chosen: dict[str, Any],
    candidates: int,
    purifier: Path | None,
    data_folder: Path | None,
) -> ImageNip:
    """Make the defences, and fit those that need it to the training role."""
    card = system.pretrained.card
    _, rows, columns = card.image_shape
    train = load_images(chosen["data"], "train", folder=data_folder).resized(rows, columns)
    path = purifier or card.purifier_path
    guided = None if path is None else GuidedNip.load(path, model_id=system.identity)
    layer = card.default_taps[-1]
    defences = image_defences(
        *(system, train.pixels),
        guided=guided,
        layer=layer,
        candidates=candidates,
        seed=system.seed,
    )
    return ImageNip(system, defences, layer, benign=chosen["benign"], progress=tell)


def beside(system: ImageSystem, plans: list[ImageAttackPlan], clean: int) -> dict[str, Any]:
    """Judge by the shipped detector, and measure random motion as a control."""
    found: dict[str, Any] = {}
    attacks = {
        f"spatial, {attack.keep}": (plan, attack)
        for plan in plans
        for _, attack in plan.attacks()
        if isinstance(attack, Spatial)
    }
    plan, attack = next(iter(attacks.values()))
    control = moved_at_random(system, attack, items=plan.items)
    who = tuple(map(str, control.rows.tolist()))
    found["at_random"] = {
        "pictures": len(control),
        "accuracy": proportion((~control.fooled).numpy(), who, seed=system.seed).to_json(),
    }
    if system.pretrained.card.calibration_path is None:
        return found
    detector = ShippedDetector(system, clean)
    sets = {name: system.attacked(*one).fooling for name, one in attacks.items()}
    sets["moved at random, named rightly"] = control.keep(~control.fooled)
    found["detection"] = {}
    for name, pictures in sets.items():
        tell(f"detector, {name}")
        found["detection"][name] = detector.result(pictures)
    return found


if __name__ == "__main__":
    main()
