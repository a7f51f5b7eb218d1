"""The NIP study on pictures: what each defence saves of what fools the undefended model."""

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
from nip_audio.errors import TemplateEmptyWarning
from nip_audio.evaluation.seeds import seed_of
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
"""Needs the clean original and the label: a protocol, no defence."""

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
    """Return every defence that changes the input, by the literature's name.

    Noise is matched to guided NIP, or, without one, to the published NIP by descent.

    Args:
        system: What is defended.
        train: (n, C, H, W) benign pictures of its training role, without labels.
        guided: Fitted to its model; None where there is none.
        layer: Whose neurons the published NIP looks at.
        candidates: Of its pool.
        seed: Of what is fitted here.
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
    """Defences of one model against attacks that do not know them.

    Attributes:
        system: The model and its roles.
        defences: By name.
        layer: Whose neurons the oracle looks at.
        benign: Pictures of ``test`` that benign accuracy is measured on, at most.
        progress: Called with what is being done.
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
        """Measure benign accuracy, and attack by attack what is classified correctly again.

        Args:
            plans: Attacks.
            keep: Called after each with all that is known so far.
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
        """Attack through the defence: who makes the picture knows the defence and its weights.

        No robust accuracy: what one attack leaves is an upper bound of it.

        Args:
            plans: Attacks that follow a gradient.

        Returns:
            One cell an attack: of the images that the undefended model classifies correctly, the
            share that still is behind guided NIP, and behind noise as strong, when the attack went
            through it; and by the undefended model when it went through that.
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
        """Name pictures behind a defence; it sees neither labels nor originals."""
        generator = torch.Generator().manual_seed(seed_of(self.system.seed, "defence"))
        defended = defend(self.system.model, defence, generator=generator)
        hits: np.ndarray[Any, Any] = (self.system.named(pixels, defended) == labels).numpy()
        return hits

    def _oracle(self, attacked: AttackedPictures, labels: Tensor) -> np.ndarray[Any, Any]:
        """As the published script: the gradient at the clean original, either sign may help."""
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
