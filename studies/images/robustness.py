r"""Rank models of images by NCCR (neuron coverage change rate), and by accuracy under attack.

    python -m studies.images.robustness studies/images/robustness.yaml --data-folder FOLDER \
        --system mnist --models FOLDER \
        --results FILE

The models are in folders below --models, named as in the YAML.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from nip_audio.attacks.objectives import Identification
from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.nccr import NccrConfig, measure_nccr
from nip_audio.core.noise import Noise
from nip_audio.evaluation.nccr_ranks import rank_models
from nip_audio.evaluation.statistics import proportion
from nip_audio.image.adapter import pixels_sha256, to_8_bits
from nip_audio.image.datasets import ImageSet, load_images
from nip_audio.models.pretrained import load_pretrained
from nip_audio.screening.measure import noise_generator
from studies.images.options import plan_parser, read_plan
from studies.images.results import add_result
from studies.images.systems import ImageAttackPlan


def main() -> None:
    """Read the command line, measure, and add to the results."""
    parser = plan_parser(__doc__)
    parser.add_argument("--system", required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    options = parser.parse_args()
    whole = read_plan(options)
    plan = {**whole, **whole["systems"][options.system]}
    tested = load_images(plan["data"], "test", folder=options.data_folder)
    tested = tested.rows(torch.arange(plan["pictures"]))
    rates, accuracy = {}, {}
    for title, name in plan["models"].items():
        loaded = load_pretrained(options.models / name)
        taps = loaded.card.default_taps
        rates[title] = changes(loaded.model, tested, taps, plan)
        accuracy[title] = answers(loaded.model, tested, plan)
    names = [str(i) for i in range(len(tested))]
    ranked = rank_models(rates, names, seed=plan["seed"])
    found = {
        "pictures": len(tested),
        "seed": plan["seed"],
        "ranked": [row.to_json() for row in ranked],
        "accuracy": accuracy,
    }
    add_result(options.results, ["robustness", options.system], found)


def changes(
    model: InstrumentedModel, data: ImageSet, taps: tuple[str, ...], plan: dict[str, Any]
) -> np.ndarray:
    """Return each image's mean relative change over taps and draws."""
    config = NccrConfig(taps, (Noise(**plan["noise"]),), plan["draws"])
    found = []
    for pixels in data.pixels:
        generator = noise_generator(plan["seed"], pixels_sha256(pixels))
        result = measure_nccr(model, Batch(pixels[None]), config, generator=generator)
        found.append(float(result.vector.mean()))
    return np.array(found)


def answers(model: InstrumentedModel, data: ImageSet, plan: dict[str, Any]) -> dict[str, Any]:
    """Measure accuracy on clean, noisy and attacked images; all images are attacked."""
    generator = torch.Generator().manual_seed(plan["seed"])
    scale = plan["noise"]["scale"]
    noisy = (data.pixels + scale * torch.randn(data.pixels.shape, generator=generator)).clamp(0, 1)
    ((_, attack),) = ImageAttackPlan.from_json(plan["attack"]).attacks()
    attacked = []
    for rows in torch.split(torch.arange(len(data)), plan["attack"]["batch"]):
        objective = Identification(model, data.labels[rows])
        result = attack(objective, Batch(data.pixels[rows]), generator=generator)
        attacked.append(to_8_bits(result.batch.x))
    kinds = {"clean": data.pixels, "noise": noisy, "pgd": torch.cat(attacked)}
    names = [str(i) for i in range(len(data))]
    return {
        kind: proportion(
            (model.predict(Batch(x)) == data.labels).numpy(), names, seed=plan["seed"]
        ).to_json()
        for kind, x in kinds.items()
    }


if __name__ == "__main__":
    main()
