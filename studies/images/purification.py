"""Study which attacks on images NIP and other defences recover from.

NIP is neuron-level inverse perturbation.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nip_audio.core.adapter import Batch
from nip_audio.core.seeds import seed_of
from nip_audio.errors import TemplateEmptyWarning
from nip_audio.evaluation.statistics import proportion
from nip_audio.purifiers.base import Defence
from nip_audio.purifiers.defending import defend
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.purifiers.nip_pool import NipPool, PoolSettings
from nip_audio.purifiers.noise import MATCHED, MatchedNoise
from nip_audio.purifiers.registry import make_purifier, purifier_entry
from nip_audio.purifiers.sparse_coding import StratifiedSparseCoding
from studies.images.systems import AttackedPictures, ImageAttackPlan, ImageSystem

__all__ = ["GUIDED", "ORACLE", "ImageNip", "image_defences"]

GUIDED = "guided NIP"
DESCENT = "NIP, descent"

ORACLE = "oracle: NIP, the published script's rule"
"""Protocol that needs the clean original and the label, so that it is no defence."""

_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "spatial-smoothing": {},
    "bit-depth": {"bits": 4},
    "tvm": {},
    "jpeg": {},
    "super-resolution": {},
    "feature-distillation": {},
}


def image_defences(
    system: ImageSystem,
    train: Tensor,
    *,
    guided: GuidedNip | None,
    layer: str,
    candidates: int,
    seed: int,
) -> dict[str, Defence]:
    """Return all defences that change the input, by their names in the literature.

    Noise is matched to guided NIP or, without it, to the published NIP by descent.

    Args:
        system: System to defend.
        train: (n, C, H, W) benign images of the training role, without labels.
        guided: Guided NIP fitted to the model, if there is one.
        layer: Layer whose neurons the published NIP uses.
        candidates: Number of candidates in the pool of the published NIP.
        seed: Seed of the defences that are fitted here.
    """
    found: dict[str, Defence] = {
        purifier_entry(name).title: make_purifier(name, model=system.model, settings=settings)
        for name, settings in _SETTINGS.items()
    }
    benign = [Batch(part) for part in torch.split(train[:candidates], 100)]
    found["STL"] = StratifiedSparseCoding.fit(
        benign, bounds=system.model.input_bounds, generator=torch.Generator().manual_seed(seed)
    )
    pools = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TemplateEmptyWarning)
        for name, sign in (("NIP, as published", "paper"), (DESCENT, "descent")):
            pools[name] = NipPool.fit(
                system.model,
                benign,
                layer=layer,
                model_id=system.identity,
                settings=PoolSettings(quorum=0.9, sign=sign),  # type: ignore[arg-type]
            )
    found |= pools
    if guided is not None:
        found[GUIDED] = guided
    strength, other = (DESCENT, pools[DESCENT]) if guided is None else (GUIDED, guided)
    found[f"{MATCHED}{strength}"] = MatchedNoise(other, bounds=system.model.input_bounds)
    return found


@dataclass(frozen=True)
class ImageNip:
    """Defences of one model against attackers who do not know them.

    Attributes:
        system: Model and its roles.
        defences: Defences by name.
        layer: Layer whose neurons the oracle uses.
        benign: Largest number of ``test`` images for benign accuracy.
        progress: Called with a description of each step.
    """

    system: ImageSystem
    defences: Mapping[str, Defence]
    layer: str
    benign: int = 5000
    progress: Callable[[str], None] = lambda what: None

    def results(
        self,
        plans: Sequence[ImageAttackPlan],
        keep: Callable[[dict[str, Any]], None] = lambda so_far: None,
    ) -> dict[str, Any]:
        """Measure benign accuracy, and for each attack how many images the defences recover.

        Args:
            plans: Attacks to run.
            keep: Called after each attack with the results so far.
        """
        test, seed = self.system.test, self.system.seed
        tested, labels = test.pixels[: self.benign], test.labels[: self.benign]
        owners = tuple(map(str, range(len(tested))))
        plain = (self.system.named(tested) == labels).numpy()
        benign, seconds = {}, {}
        for name, defence in self.defences.items():
            self.progress(f"benign, {name}")
            started = time.process_time()
            hits = self._right(tested, labels, defence)
            seconds[name] = (time.process_time() - started) / len(tested)
            benign[name] = proportion(hits, owners, seed=seed).to_json()
        cells: list[dict[str, Any]] = []
        found = {
            "benign": len(tested),
            "undefended": proportion(plain, owners, seed=seed).to_json(),
            "benign_accuracy": benign,
            "seconds": seconds,
            "cells": cells,
        }
        for plan in plans:
            for name, attack in plan.attacks():
                self.progress(name)
                made = self.system.attacked(plan, attack)
                fooling = made.fooling
                cell: dict[str, Any] = {
                    "name": name,
                    "attack": attack.settings(),
                    "attempts": len(made),
                    "examples": len(fooling),
                    "seconds": made.seconds,
                }
                if len(fooling):
                    cell["dsr"] = self._saved(fooling)
                cells.append(cell)
                keep(found)
        return found

    def adaptive(self, plans: Sequence[ImageAttackPlan]) -> list[dict[str, Any]]:
        """Attack through the defence, with an attacker who knows the defence and its weights.

        The result is not a robust accuracy, since one attack gives only an upper bound of it.

        Args:
            plans: Attacks that follow a gradient.

        Returns:
            One cell per attack: of the images that the undefended model classifies correctly, the
            share still classified correctly after an attack through guided NIP, through noise of
            the same strength, and through the undefended model, each behind what was attacked.
        """
        chosen = {n: d for n, d in self.defences.items() if n == GUIDED or n.startswith(MATCHED)}
        cells = []
        for plan in plans:
            for name, attack in plan.attacks():
                self.progress(f"adaptive, {name}")
                plain = self.system.attacked(plan, attack)
                left = {"undefended": self._withstood(plain)}
                for title, defence in chosen.items():
                    generator = torch.Generator().manual_seed(seed_of(self.system.seed, "adaptive"))
                    defended = defend(self.system.model, defence, generator=generator)
                    knows = defence.settings()
                    made = self.system.attacked(plan, attack, model=defended, knows=knows)
                    left[title] = self._withstood(made)
                cells.append(
                    {
                        "name": name,
                        "attack": attack.settings(),
                        "attempts": len(plain),
                        "still_right": left,
                    }
                )
        return cells

    def _withstood(self, made: AttackedPictures) -> dict[str, float]:
        who = tuple(map(str, made.rows.tolist()))
        return proportion((~made.fooled).numpy(), who, seed=self.system.seed).to_json()

    def _saved(self, attacked: AttackedPictures) -> dict[str, Any]:
        labels = self.system.test.labels[attacked.rows]
        who = tuple(map(str, attacked.rows.tolist()))
        found = {
            name: self._right(attacked.pixels, labels, defence)
            for name, defence in self.defences.items()
        }
        found[ORACLE] = self._oracle(attacked, labels)
        return {
            name: proportion(hits, who, seed=self.system.seed).to_json()
            for name, hits in found.items()
        }

    @torch.no_grad()
    def _right(self, pixels: Tensor, labels: Tensor, defence: Defence) -> np.ndarray[Any, Any]:
        """Return which images are correct behind a defence, which gets no labels or originals."""
        generator = torch.Generator().manual_seed(seed_of(self.system.seed, "defence"))
        defended = defend(self.system.model, defence, generator=generator)
        hits: np.ndarray[Any, Any] = (self.system.named(pixels, defended) == labels).numpy()
        return hits

    def _oracle(self, attacked: AttackedPictures, labels: Tensor) -> np.ndarray[Any, Any]:
        """Apply the published script's rule: gradient at the clean original, with either sign."""
        clean = self.system.test.pixels[attacked.rows]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TemplateEmptyWarning)
            pool = NipPool.fit(
                self.system.model,
                [Batch(part) for part in torch.split(clean, 100)],
                layer=self.layer,
                model_id=self.system.identity,
                settings=PoolSettings(front=1, tail=5),
            )
        scale = attacked.pixels.flatten(1).mean(dim=1).reshape(-1, 1, 1, 1)
        change = scale * pool.rho.reshape(clean.shape)
        bounds = self.system.model.input_bounds
        either = torch.zeros(len(clean), dtype=torch.bool)
        for sign in (1, -1):
            either |= self.system.named(bounds.clip(attacked.pixels + sign * change)) == labels
        hits: np.ndarray[Any, Any] = either.numpy()
        return hits
