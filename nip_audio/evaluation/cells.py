"""List the cells of an evaluation: one system, one attack at one strength, one protocol each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nip_audio.attacks.base import Attack
from nip_audio.attacks.registry import attack_entry, make_attack
from nip_audio.core.near import suggest_names
from nip_audio.errors import InputError
from nip_audio.evaluation.adversarial_sets import Recipe
from nip_audio.evaluation.config import AttackPlan, EvaluationConfig
from nip_audio.evaluation.defences import NO_DEFENCE, applies
from nip_audio.evaluation.detector_judges import CLEAN_ONLY
from nip_audio.evaluation.guard import AttackedDetector
from nip_audio.evaluation.systems import EvaluatedSystem
from nip_audio.purifiers.base import Defence

__all__ = ["Cell", "plan_cells", "recipe_of"]


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix of systems and attacks.

    Attributes:
        system: Name of the system under attack.
        plan: Plan of the attack, from the configuration.
        attack: Attack made from the plan, at one strength.
        eps: Strength ε of the attack; None for an attack without one.
        defence: Name of the defence or detector that the attacker knows; ``NO_DEFENCE`` unless
            the protocol is adaptive.
    """

    system: str
    plan: AttackPlan
    attack: Attack
    eps: float | None
    defence: str

    @property
    def name(self) -> str:
        """Readable folder name; the recipe's key is appended to make it unique."""
        parts = [self.system, self.plan.attack, self.plan.level]
        if self.eps is not None:
            parts.append(f"{self.eps:.5g}")
        if self.plan.protocol != "unaware":
            parts.append(self.plan.protocol)
        return "-".join(parts)

    def describe(self) -> dict[str, Any]:
        """Return the columns that identify the cell in tables, as JSON values."""
        entry = attack_entry(self.plan.attack)
        return {
            "system": self.system,
            "attack": self.plan.attack,
            "title": entry.title,
            "family": entry.family,
            "library": entry.library,
            "white_box": self.attack.white_box,
            "norm": self.attack.norm,
            "level": self.plan.level,
            "eps": self.eps,
            "settings": self.attack.settings(),
            "protocol": self.plan.protocol,
            "source": self.plan.source,
            "attacked_defence": self.defence,
        }


def plan_cells(
    config: EvaluationConfig, system: str, defences: Mapping[str, Defence | None]
) -> Iterator[Cell]:
    """List the cells of one system, in the order of the configuration.

    Raises:
        InputError: If an attack names a defence that the system does not have, or that is not
            between the attacker and the model.
    """
    for plan in config.attacks:
        if plan.systems and system not in plan.systems:
            continue
        names: Sequence[str] = [NO_DEFENCE]
        if plan.detector:
            names = [CLEAN_ONLY]
        elif plan.protocol == "adaptive":
            names = [n for n, d in defences.items() if d is not None and applies(d, plan.level)]
            names = _chosen(plan, names) if plan.behind else names
        for eps in plan.eps:
            attack = make_attack(plan.attack, level=plan.level, eps=eps, settings=plan.settings)
            for name in names:
                yield Cell(system, plan, attack, eps, name)


def _chosen(plan: AttackPlan, names: Sequence[str]) -> Sequence[str]:
    for name in plan.behind:
        if name not in names:
            raise InputError(
                f"{plan.attack} names defence {name!r}, which is unknown at level "
                f"{plan.level}; {suggest_names(name, names)}"
            )
    return plan.behind


def recipe_of(
    cell: Cell,
    system: EvaluatedSystem,
    source: EvaluatedSystem,
    purifier: Defence | None,
    guard: AttackedDetector | None,
    *,
    seed: int,
) -> Recipe:
    """Return the recipe of a cell's examples, made from the first correctly classified clips.

    Args:
        cell: Cell to make examples for.
        system: System under attack.
        source: System that the attacker knows; another one only for the protocol ``transfer``.
        purifier: Defence that the attacker knows, if any.
        guard: Detector that the attacker knows, if any.
        seed: Seed of the run.
    """
    return Recipe(
        system=system,
        source=source,
        purifier=purifier,
        guard=guard,
        attack=cell.attack,
        level=cell.plan.level,
        items=system.correct_items[: cell.plan.items],
        seed=seed,
        batch=cell.plan.batch,
    )
