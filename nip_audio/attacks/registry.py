"""Every attack by name: what it is, and how it is made from the few settings all share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from nip_audio.attacks.autoattack import AutoAttack
from nip_audio.attacks.base import Attack
from nip_audio.attacks.decision import AdditiveUniformNoise, Boundary, Pointwise
from nip_audio.attacks.end_to_end import EndToEndPgd
from nip_audio.attacks.fakebob import Fakebob
from nip_audio.attacks.gradient import GradientAttack
from nip_audio.attacks.hopskipjump import HopSkipJump
from nip_audio.attacks.jsma import Jsma
from nip_audio.attacks.kenansville import Kenansville
from nip_audio.attacks.l2 import L2Pgd
from nip_audio.attacks.minimum import CarliniWagner, DeepFool
from nip_audio.attacks.neuron import NeuronAttack
from nip_audio.attacks.one_pixel import OnePixel
from nip_audio.attacks.spatial import Spatial
from nip_audio.attacks.square import Square
from nip_audio.attacks.universal import UniversalPerturbation
from nip_audio.core.near import suggest_names
from nip_audio.errors import AttackError

__all__ = ["ATTACKS", "AttackEntry", "Level", "attack_entry", "make_attack", "names_at"]

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
        kind: Its class, a dataclass whose fields are its settings.
        fixed: Settings that make the class this attack.
        levels: Where it can work.
        pictures_only: Whether it is made for pictures, and means nothing to a recording.
    """

    title: str
    family: Family
    library: str
    kind: type[Attack]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    levels: tuple[Level, ...] = ("raw", "input")
    pictures_only: bool = False

    @property
    def settings(self) -> tuple[str, ...]:
        """Names of the settings that can be chosen."""
        return tuple(f.name for f in fields(self.kind) if f.name not in self.fixed)


ATTACKS: Mapping[str, AttackEntry] = {
    "fgsm": AttackEntry(
        "FGSM",
        "white box",
        "Foolbox",
        GradientAttack,
        {"method": "fgsm", "steps": 1, "step_share": 1.0, "draws": 1},
    ),
    "bim": AttackEntry(
        "BIM", "white box", "Foolbox", GradientAttack, {"method": "bim", "draws": 1}
    ),
    "mi-fgsm": AttackEntry(
        "MI-FGSM", "white box", "Foolbox", GradientAttack, {"method": "mi-fgsm", "draws": 1}
    ),
    "pgd": AttackEntry(
        "PGD", "white box", "Foolbox", GradientAttack, {"method": "pgd", "draws": 1}
    ),
    "pgd-l2": AttackEntry("PGD, L2", "white box", "Foolbox", L2Pgd),
    "eot": AttackEntry("EOT", "white box", "Foolbox", GradientAttack, {"method": "eot"}),
    "jsma": AttackEntry("JSMA", "white box", "ART", Jsma, levels=("input",)),
    "uap": AttackEntry("UAP", "white box", "ART", UniversalPerturbation),
    "autoattack": AttackEntry("AutoAttack", "white box", "ART", AutoAttack),
    "one-pixel": AttackEntry("one-pixel", "black box", "ART", OnePixel, levels=("input",)),
    "square": AttackEntry("Square", "black box", "ART", Square, levels=("input",)),
    "hopskipjump": AttackEntry("HopSkipJump", "black box", "ART", HopSkipJump),
    "deepfool": AttackEntry("DeepFool", "white box", "Foolbox", DeepFool),
    "cw": AttackEntry("C&W", "white box", "Foolbox", CarliniWagner),
    "auna": AttackEntry("AUNA", "black box", "Foolbox", AdditiveUniformNoise),
    "pwa": AttackEntry("PWA", "black box", "Foolbox", Pointwise, levels=("input",)),
    "boundary": AttackEntry("Boundary", "black box", "Foolbox", Boundary),
    "fakebob": AttackEntry("FAKEBOB", "black box", "own", Fakebob),
    "kenansville": AttackEntry("Kenansville", "black box", "own", Kenansville, levels=("raw",)),
    "spatial": AttackEntry(
        "rotation and translation",
        "black box",
        "own",
        Spatial,
        levels=("input",),
        pictures_only=True,
    ),
    "s-ala": AttackEntry("S-ALA", "adaptive", "own", NeuronAttack, {"method": "s-ala"}),
    "r-ala": AttackEntry("R-ALA", "adaptive", "own", NeuronAttack, {"method": "r-ala"}),
    "pgd-e2e": AttackEntry("end-to-end PGD", "adaptive", "own", EndToEndPgd),
}


def attack_entry(name: str) -> AttackEntry:
    """Look an attack up.

    Raises:
        AttackError: For an unknown name, listing near ones.
    """
    if name not in ATTACKS:
        raise AttackError(f"no attack {name!r}; {suggest_names(str(name), ATTACKS)}")
    return ATTACKS[name]


def names_at(level: Level, *, pictures: bool = False) -> list[str]:
    """List the attacks that work at a level, those for pictures only if they are asked for."""
    return [
        name
        for name, entry in ATTACKS.items()
        if level in entry.levels and (pictures or not entry.pictures_only)
    ]


def make_attack(
    name: str,
    *,
    eps: float | None = None,
    level: Level = "raw",
    settings: Mapping[str, Any] | None = None,
) -> Attack:
    """Return an attack by name; settings that are not given, or None, are the attack's own.

    Args:
        name: One of ``ATTACKS``.
        eps: Largest change of a value, or, for ``pgd-l2``, Euclidean norm of the whole change, in
            units of the input.
        level: Where it is to work.
        settings: Others by name, e.g. ``{"steps": 40}``.

    Raises:
        AttackError: For an unknown name, listing near ones, a senseless setting, one that the
            attack does not have, or a level at which it cannot work.
    """
    entry = attack_entry(name)
    if level not in entry.levels and entry.pictures_only:
        raise AttackError(
            f"{name} is for pictures only, expected an attack for level {level!r}, a recording's; "
            f"choose one of {', '.join(names_at(level))}"
        )
    if level not in entry.levels:
        raise AttackError(
            f"{name} cannot work at level {level!r}, expected {' or '.join(entry.levels)}: at that "
            f"one work {', '.join(names_at(level))}"
        )
    given = {"eps": eps, **(settings or {})}
    given = {key: value for key, value in given.items() if value is not None}
    unknown = sorted(given.keys() - set(entry.settings))
    if unknown:
        raise AttackError(
            f"{name} has no setting {', '.join(unknown)}, expected only "
            f"{', '.join(entry.settings) or 'none'}; leave it out"
        )
    if "eps" in entry.settings and eps is None:
        raise AttackError(
            f"{name} needs eps in units of the input: the largest change of a value (0.002 is "
            "usual for a waveform, 0.0157, 4/255, for a spectrogram), or, for pgd-l2, the "
            "Euclidean norm of the whole change (0.2)"
        )
    return entry.kind(**entry.fixed, **given)
