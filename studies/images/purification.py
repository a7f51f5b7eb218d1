"""Study which attacks on images NIP and other defences recover from.

NIP is neuron-level inverse perturbation.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from nip_audio.attacks.base import Attack
from nip_audio.core.adapter import Batch
from nip_audio.core.metrics import Interval
from nip_audio.core.seeds import seed_of
from nip_audio.errors import TemplateEmptyWarning
from nip_audio.evaluation.config import AttackPlan
from nip_audio.purifiers.base import Defence, Purifier
from nip_audio.purifiers.defending import defend
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.purifiers.nip_pool import NipPool, PoolSettings, Sign
from nip_audio.purifiers.noise import MATCHED, MatchedNoise
from nip_audio.purifiers.patch_dictionary import PatchDictionary
from nip_audio.purifiers.registry import make_purifier, purifier_entry
from studies._lib.attacks import attacks_of, image_attack
from studies._lib.command import tell
from studies._lib.shares import share_of
from studies.images.results import AdaptiveCell, Benign, DefenceResults, DefendedCell
from studies.images.setup import Setup
from studies.images.systems import AttackedImages, ImageSystem

__all__ = [
    "GUIDED",
    "ORACLE",
    "Defended",
    "DefenceStudy",
    "defence_study",
    "elasticity",
    "image_defences",
    "nip",
]

GUIDED = "guided NIP"
DESCENT = "NIP, descent"

ORACLE = "oracle: NIP, the published script's rule"
"""Protocol that needs the clean original and the label, so that it is no defence."""

_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "spatial-smoothing": {},
    "bit-depth": {"bits": 4},
    "tvm": {},
    "jpeg": {},
    "bicubic": {},
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
    """Return all defences that change the input, by their names in tables.

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
    found["patch dictionary"] = PatchDictionary.fit(
        benign, bounds=system.model.input_bounds, generator=torch.Generator().manual_seed(seed)
    )
    signs: Mapping[str, Sign] = {"NIP, sign of Eq. 8": "paper", DESCENT: "descent"}
    own: dict[str, Purifier] = {
        name: _pool(system, benign, layer, PoolSettings(quorum=0.9, sign=sign))
        for name, sign in signs.items()
    }
    if guided is not None:
        own[GUIDED] = guided
    strength = DESCENT if guided is None else GUIDED
    own[f"{MATCHED}{strength}"] = MatchedNoise(own[strength], bounds=system.model.input_bounds)
    return found | own


def _pool(
    system: ImageSystem, images: Sequence[Batch], layer: str, settings: PoolSettings
) -> NipPool:
    """Fit a pool without a warning about an empty template."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TemplateEmptyWarning)
        return NipPool.fit(
            system.model, images, layer=layer, model_id=system.identity, settings=settings
        )


@dataclass(frozen=True)
class Defended:
    """Defences in front of a classifier, which is asked for nothing but classes.

    A defence gets images only, neither labels nor originals.

    Attributes:
        predict: Function that returns the classes (n,) of images (n, C, H, W) behind a defence,
            or without one.
        defences: Defences by name.
        seed: Seed of the bootstrap.
        progress: Called with a description of each step.
    """

    predict: Callable[[Tensor, Defence | None], Tensor]
    defences: Mapping[str, Defence]
    seed: int
    progress: Callable[[str], None] = lambda what: None

    def benign(self, pixels: Tensor, truth: Tensor) -> Benign:
        """Return the accuracy on unattacked images against ``truth``, by defence."""
        behind, seconds = {}, {}
        for name, defence in self.defences.items():
            self.progress(f"benign, {name}")
            started = time.process_time()
            behind[name] = self.share(self.predict(pixels, defence) == truth)
            seconds[name] = (time.process_time() - started) / len(pixels)
        undefended = self.share(self.predict(pixels, None) == truth)
        return Benign(len(pixels), undefended, behind, seconds)

    def saved(self, name: str, attack: Attack, made: AttackedImages, truth: Tensor) -> DefendedCell:
        """Return the defence success rate (DSR): share of the successful attacks recovered.

        Args:
            name: Name of the attack with its strength.
            attack: The attack.
            made: Attacked images; ``fooled`` says which are successes.
            truth: (n,) correct classes.
        """
        fooling, classes = made.fooling, truth[made.fooled]
        return DefendedCell(
            name=name,
            attack=attack.settings(),
            attempts=len(made),
            examples=len(fooling),
            dsr={
                title: self.share(self.predict(fooling.pixels, defence) == classes, fooling.rows)
                for title, defence in self.defences.items()
            }
            if len(fooling)
            else {},
            success=self.share(made.fooled, made.rows),
            seconds=made.seconds,
        )

    def share(self, hits: Tensor, rows: Tensor | None = None) -> Interval:
        """Return a share; ``rows`` are the indices of the images, by default the first ones."""
        return share_of(hits, rows, seed=self.seed)


@dataclass(frozen=True)
class DefenceStudy:
    """Defences of one model against attackers who do not know them, and who do.

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
    progress: Callable[[str], None] = field(default=lambda what: None)

    @property
    def defended(self) -> Defended:
        """The defences in front of the model."""
        return Defended(self._predict, self.defences, self.system.seed, self.progress)

    def results(
        self,
        plans: Sequence[AttackPlan],
        keep: Callable[[DefenceResults], None] = lambda so_far: None,
    ) -> DefenceResults:
        """Measure benign accuracy, and for each attack how many images the defences recover.

        Args:
            plans: Attacks to run.
            keep: Called after each attack with the results so far.
        """
        system, labels = self.system, self.system.test.labels
        pixels = system.test.pixels[: self.benign]
        benign = self.defended.benign(pixels, labels[: self.benign])
        found = DefenceResults(system.name, system.seed, benign, ())
        for plan in plans:
            for name, attack in attacks_of(plan):
                self.progress(name)
                made = system.attacked(plan, attack)
                cell = self.defended.saved(name, attack, made, labels[made.rows])
                if cell.dsr:
                    cell = replace(cell, dsr={**cell.dsr, ORACLE: self._oracle(made.fooling)})
                found = replace(found, cells=(*found.cells, cell))
                keep(found)
        return found

    def adaptive(self, plans: Sequence[AttackPlan]) -> list[AdaptiveCell]:
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
        share, cells = self.defended.share, []
        for plan in plans:
            for name, attack in attacks_of(plan):
                self.progress(f"adaptive, {name}")
                plain = self.system.attacked(plan, attack)
                left = {"undefended": share(~plain.fooled, plain.rows)}
                for title, defence in chosen.items():
                    behind = self._behind(defence, "adaptive")
                    knows = defence.settings()
                    made = self.system.attacked(plan, attack, model=behind, knows=knows)
                    left[title] = share(~made.fooled, made.rows)
                cells.append(AdaptiveCell(name, attack.settings(), len(plain), left))
        return cells

    def _behind(self, defence: Defence, use: str) -> Any:
        generator = torch.Generator().manual_seed(seed_of(self.system.seed, use))
        return defend(self.system.model, defence, generator=generator)

    @torch.no_grad()
    def _predict(self, pixels: Tensor, defence: Defence | None) -> Tensor:
        model = None if defence is None else self._behind(defence, "defence")
        return self.system.predict(pixels, model)

    def _oracle(self, attacked: AttackedImages) -> Interval:
        """Apply the published script's rule: gradient at the clean original, with either sign."""
        test, bounds = self.system.test, self.system.model.input_bounds
        clean, labels = test.pixels[attacked.rows], test.labels[attacked.rows]
        images = [Batch(part) for part in torch.split(clean, 100)]
        pool = _pool(self.system, images, self.layer, PoolSettings(front=1, tail=5))
        scale = attacked.pixels.flatten(1).mean(dim=1).reshape(-1, 1, 1, 1)
        change = scale * pool.rho.reshape(clean.shape)
        either = torch.zeros(len(clean), dtype=torch.bool)
        for sign in (1, -1):
            moved = bounds.clip(attacked.pixels + sign * change)
            either |= self.system.predict(moved) == labels
        return self.defended.share(either, attacked.rows)


def defence_study(setup: Setup) -> DefenceStudy:
    """Load a system and make its defences; those that need it are fitted to the training role."""
    system = setup.system()
    layer = system.pretrained.card.default_taps[-1]
    defences = image_defences(
        system,
        setup.train(system),
        guided=setup.guided(system),
        layer=layer,
        candidates=setup.plan["candidates"],
        seed=setup.seed,
    )
    return DefenceStudy(system, defences, layer, setup.chosen.get("benign", 5000), tell)


def nip(setup: Setup) -> None:
    """Measure NIP and other defences, against attackers who do not know them and who do."""
    study = defence_study(setup)
    found = study.results([image_attack(one) for one in setup.chosen["attacks"]], setup.keep)
    knowing = study.adaptive([image_attack(one) for one in setup.chosen["adaptive"]])
    setup.keep(replace(found, adaptive=knowing))


def elasticity(setup: Setup) -> None:
    """Measure the defences against ever larger changes."""
    plans = [image_attack(one) for one in setup.chosen["elasticity"]]
    setup.keep(defence_study(setup).results(plans))
