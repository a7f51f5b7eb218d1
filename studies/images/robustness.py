"""Rank models of images by NCCR (neuron coverage change rate), and by accuracy under attack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nip_audio.core.adapter import Batch
from nip_audio.core.metrics import Interval
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.nccr import NccrConfig, measure_nccr
from nip_audio.core.noise import Noise
from nip_audio.errors import InputError
from nip_audio.evaluation.nccr_ranks import rank_models
from nip_audio.image.adapter import pixels_sha256
from nip_audio.image.datasets import ImageSet, load_images
from nip_audio.models.pretrained import load_pretrained
from nip_audio.screening.measure import noise_generator
from studies._lib.attacks import attacks_of, image_attack
from studies._lib.shares import share_of
from studies.images.results import RankedResults
from studies.images.setup import Setup
from studies.images.systems import attack_images

__all__ = ["robustness"]


def robustness(setup: Setup) -> None:
    """Measure the models in folders below --models, named as in the plan."""
    if setup.models is None:
        raise InputError("--models is missing; give the folder of the trained models")
    plan = {**setup.plan, **setup.chosen}
    tested = load_images(plan["data"], "test", folder=setup.data_folder)
    tested = tested.rows(torch.arange(plan["images"]))
    rates, accuracy = {}, {}
    for title, name in plan["models"].items():
        loaded = load_pretrained(setup.models / name)
        rates[title] = changes(loaded.model, tested, loaded.card.default_taps, plan)
        accuracy[title] = answers(loaded.model, tested, plan)
    ranked = rank_models(rates, [str(i) for i in range(len(tested))], seed=setup.seed)
    setup.keep(RankedResults(len(tested), setup.seed, ranked, accuracy))


def changes(
    model: InstrumentedModel, data: ImageSet, taps: tuple[str, ...], plan: Mapping[str, Any]
) -> NDArray[np.float64]:
    """Return each image's mean relative change over taps and draws."""
    config = NccrConfig(taps, (Noise(**plan["noise"]),), plan["draws"])
    found = []
    for pixels in data.pixels:
        generator = noise_generator(plan["seed"], pixels_sha256(pixels))
        result = measure_nccr(model, Batch(pixels[None]), config, generator=generator)
        found.append(float(result.vector.mean()))
    return np.array(found)


def answers(
    model: InstrumentedModel, data: ImageSet, plan: Mapping[str, Any]
) -> dict[str, Interval]:
    """Measure accuracy on clean, noisy and attacked images; all images are attacked."""
    generator = torch.Generator().manual_seed(plan["seed"])
    scale = plan["noise"]["scale"]
    noisy = (data.pixels + scale * torch.randn(data.pixels.shape, generator=generator)).clamp(0, 1)
    planned = image_attack(plan["attack"])
    ((_, attack),) = attacks_of(planned)
    attacked = attack_images(
        model,
        data.pixels,
        data.labels,
        attack,
        batch=planned.batch,
        generator=lambda number: generator,
    )
    return {
        kind: share_of(model.predict(Batch(x)) == data.labels, seed=plan["seed"])
        for kind, x in (("clean", data.pixels), ("noise", noisy), ("pgd", attacked))
    }
