"""Every attack by name: what it is, and how it is made from the few settings all share."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from nip_audio.attacks.base import Attack
from nip_audio.attacks.gradient import GradientAttack
from nip_audio.errors import AttackError

__all__ = ["ATTACKS", "AttackEntry", "Level", "attack_entry", "make_attack"]

Level = Literal["raw", "input"]
"""Where an attack works: on raw input (a waveform), or on the model's own (a spectrogram)."""

Family = Literal["white box", "black box", "adaptive", "other"]


@dataclass(frozen=True)
class AttackEntry:
    """What is known of an attack before it is made.

    Attributes:
        title: As the literature writes it.
        family: What the attacker knows, or what the attack is made for.
        library: Who implements it.
        make: Makes it from keyword settings.
        options: Names of the settings it takes, of ``eps``, ``steps`` and ``queries``.
        levels: Where it can work.
    """

    title: str
    family: Family
    library: str
    make: Callable[..., Attack]
    options: frozenset[str]
    levels: tuple[Level, ...] = ("raw", "input")


def _gradient(method: str) -> Callable[..., Attack]:
    return lambda **settings: GradientAttack(method, **settings)


_STEPS = frozenset({"eps", "steps"})

ATTACKS: Mapping[str, AttackEntry] = {
    "fgsm": AttackEntry("FGSM", "white box", "Foolbox", _gradient("fgsm"), frozenset({"eps"})),
    "bim": AttackEntry("BIM", "white box", "Foolbox", _gradient("bim"), _STEPS),
    "mi-fgsm": AttackEntry("MI-FGSM", "white box", "Foolbox", _gradient("mi-fgsm"), _STEPS),
    "pgd": AttackEntry("PGD", "white box", "Foolbox", _gradient("pgd"), _STEPS),
    "eot": AttackEntry("EOT", "white box", "Foolbox", _gradient("eot"), _STEPS),
}


def attack_entry(name: str) -> AttackEntry:
    """Look an attack up.

    Raises:
        AttackError: For an unknown name, listing near ones.
    """
    if name not in ATTACKS:
        near = difflib.get_close_matches(str(name), ATTACKS, n=3) or ATTACKS
        raise AttackError(f"no attack {name!r}; near: {', '.join(near)}")
    return ATTACKS[name]


def make_attack(
    name: str,
    *,
    eps: float | None = None,
    steps: int | None = None,
    queries: int | None = None,
    level: Level = "raw",
) -> Attack:
    """Return an attack by name; what is left None is the attack's own default.

    Args:
        name: One of ``ATTACKS``.
        eps: Largest change of a value, in units of the input.
        steps: Steps or iterations.
        queries: Most inputs scored an item.
        level: Where it is to work.

    Raises:
        AttackError: For an unknown name, listing near ones, a senseless setting, one that the
            attack does not have, or a level at which it cannot work.
    """
    entry = attack_entry(name)
    if level not in entry.levels:
        raise AttackError(
            f"{name} cannot work at level {level!r}, expected {' or '.join(entry.levels)}: it "
            "costs queries for each value of the input, or is made for the other level"
        )
    given: dict[str, Any] = {"eps": eps, "steps": steps, "queries": queries}
    settings = {key: value for key, value in given.items() if value is not None}
    unknown = sorted(settings.keys() - entry.options)
    if unknown:
        raise AttackError(
            f"{name} has no {' or '.join(unknown)}, expected only "
            f"{', '.join(sorted(entry.options)) or 'no setting'}; leave it out"
        )
    if "eps" in entry.options and eps is None:
        raise AttackError(
            f"{name} needs eps, the largest change of a value in units of the input; 0.002 is "
            "usual for a waveform, 0.0157 (4/255) for a spectrogram"
        )
    return entry.make(**settings)
