"""Judge attacks at full strength, and at the smallest strength that fools, by the baselines.

The NCCR paper (neuron coverage change rate) attacks with Foolbox's defaults. Before version 3 these
searched for the smallest strength that fools, for FGSM and PGD, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nip_audio.attacks.objectives import Identification
from nip_audio.attacks.registry import make_attack
from nip_audio.core.adapter import Batch
from nip_audio.core.seeds import seed_of
from nip_audio.detectors.base import Measure
from nip_audio.detectors.baselines.attack_cost import AttackCost
from nip_audio.detectors.baselines.dissector import Dissector
from nip_audio.detectors.baselines.model_mutation import LabelChangeRate
from nip_audio.evaluation.measured import RowBank
from nip_audio.evaluation.paired_auroc import Scored, mean_auroc
from studies._lib.attacks import fraction
from studies._lib.command import tell
from studies.images.results import SmallestCell, SmallestResults
from studies.images.setup import Setup
from studies.images.systems import ImageSystem

__all__ = ["smallest", "smallest_examples"]


@dataclass(frozen=True)
class Examples:
    """Images that fool the model.

    Attributes:
        pixels: (n, C, H, W) images, not rounded to 8 bits, which would undo the smallest changes.
        rows: Index of each image in the ``test`` role.
        eps: Strength of each.
    """

    pixels: Tensor
    rows: tuple[int, ...]
    eps: tuple[float, ...]


def smallest_examples(
    system: ImageSystem, attack: str, strengths: Sequence[float], *, images: int
) -> Examples:
    """Attack images with growing strength, and keep the first example of each that fools.

    Args:
        system: Model and its roles.
        attack: Name of an attack that is bounded by ε.
        strengths: Values of ε, in ascending order; a single one attacks at full strength.
        images: Number of correctly classified images of ``test`` to attack.
    """
    rows = system.correct_rows[:images]
    found: dict[int, tuple[Tensor, float]] = {}
    for eps in strengths:
        left = torch.tensor([row for row in rows.tolist() if row not in found], dtype=torch.long)
        if not len(left):
            break
        labels = system.test.labels[left]
        generator = torch.Generator().manual_seed(seed_of(system.seed, attack, eps))
        made = make_attack(attack, eps=eps, level="input")(
            Identification(system.model, labels),
            Batch(system.test.pixels[left]),
            generator=generator,
        )
        fooled = system.predict(made.batch.x) != labels
        found |= {
            row: (pixels, eps)
            for row, pixels, hit in zip(left.tolist(), made.batch.x, fooled, strict=True)
            if hit
        }
    order = sorted(found)
    return Examples(
        torch.stack([found[row][0] for row in order]),
        tuple(order),
        tuple(found[row][1] for row in order),
    )


def _baselines(system: ImageSystem, step: float) -> Iterator[Measure]:
    yield LabelChangeRate()
    yield Dissector(system.pretrained.card.default_taps)
    yield AttackCost(step=step)


def smallest(setup: Setup) -> None:
    """Measure the AUROC of the paper's baselines against both kinds of examples."""
    system, chosen = setup.system(), setup.chosen
    plan, bank = chosen["smallest"], RowBank(system, setup.out / "rows", setup.seed)
    clean = system.test.pixels[: plan["clean"]]
    right = (system.predict(clean) == system.test.labels[: plan["clean"]]).numpy()
    learn = list(system.calibrate.pixels[-plan["learn"] :])
    owners = tuple(f"t{row}" for row in np.flatnonzero(right))
    full, steps = fraction(plan["full"]), plan["steps"]
    grown = [full * step / steps for step in range(1, steps + 1)]
    cells: list[SmallestCell] = []
    for attack in plan["attacks"]:
        for strengths in ([full], grown):
            tell(f"{attack}, {len(strengths)} strengths")
            made = smallest_examples(system, attack, strengths, images=plan["images"])
            judges = {}
            for measure in _baselines(system, chosen["attack_step"]):
                tell(measure.name)
                sides = (
                    bank.rows(measure, list(pixels), fitted_to=learn).rows
                    for pixels in (made.pixels, clean[right])
                )
                attacked, benign = (measure.suspicion(rows) for rows in sides)
                pair = Scored(attacked, tuple(f"t{r}" for r in made.rows)), Scored(benign, owners)
                judges[measure.name] = mean_auroc([pair], seed=setup.seed, rounds=300)
            cells.append(
                SmallestCell(
                    attack=attack,
                    smallest=len(strengths) > 1,
                    attempts=plan["images"],
                    examples=len(made.rows),
                    median_eps=float(np.median(made.eps)),
                    judges=judges,
                )
            )
            setup.keep(SmallestResults(system.name, setup.seed, int(right.sum()), cells))
