"""Attack plans of the studies, and the attacks that they plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nip_audio.attacks.base import Attack
from nip_audio.attacks.registry import make_attack
from nip_audio.evaluation.config import AttackPlan

__all__ = ["attacks_of", "fraction", "image_attack"]


def fraction(value: object) -> float:
    """Read a number or a fraction such as 8/255."""
    above, _, below = str(value).partition("/")
    return float(above) / float(below or 1)


def image_attack(data: Mapping[str, Any]) -> AttackPlan:
    """Read a plan for images; strengths ε may be fractions."""
    given = {"items": 200, "batch": 50, **data}
    eps = tuple(map(fraction, data["eps"])) if "eps" in data else (None,)
    return AttackPlan(**{**given, "eps": eps, "level": "input"})


def attacks_of(plan: AttackPlan) -> Iterator[tuple[str, Attack]]:
    """Yield the attack of each strength with its name for tables."""
    for eps in plan.eps:
        name = plan.attack if eps is None else f"{plan.attack} {eps:.4g}"
        yield (
            name,
            make_attack(plan.attack, eps=eps, level=plan.level, settings=plan.settings),
        )
