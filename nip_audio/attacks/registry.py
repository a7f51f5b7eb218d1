"""Registry of all attacks by name, with the function that makes one from its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from nip_audio.attacks.autoattack import AutoAttack
from nip_audio.attacks.base import Attack
from nip_audio.attacks.decision import (
    AdditiveUniformNoise,
    Boundary,
    GrowingUniformNoise,
    Pointwise,
)
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
from nip_audio.attacks.universal import UniversalDeepFool, UniversalPerturbation
from nip_audio.core.near import suggest_names
from nip_audio.errors import AttackError

__all__ = ["ATTACKS", "AttackEntry", "Level", "attack_entry", "make_attack", "names_at"]

Level = Literal["raw", "input"]
"""Input that an attack changes: raw input (a waveform), or the model's input (a spectrogram)."""

Family = Literal["white box", "black box", "adaptive", "other"]


@dataclass(frozen=True)
class AttackEntry:
    """Description of an attack, from which it can be made.

    Attributes:
        title: Name of the attack in the literature.
        family: Knowledge or purpose of the attacker: white box, black box, adaptive or other.
        library: Libraries that implement the attack; "own" for this package.
        kind: Class of the attack, a dataclass whose fields are its settings.
        fixed: Values of the settings that distinguish this attack from others of the class.
        levels: Levels at which the attack works.
        images_only: Whether the attack works on images only, not on recordings.
    """

    title: str
    family: Family
    library: str
    kind: type[Attack]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    levels: tuple[Level, ...] = ("raw", "input")
    images_only: bool = False

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
    "uap": AttackEntry("UAP", "white box", "own", UniversalPerturbation),
    "uap-deepfool": AttackEntry("UAP by DeepFool", "white box", "ART", UniversalDeepFool),
    "autoattack": AttackEntry("AutoAttack", "white box", "own and ART", AutoAttack),
    "one-pixel": AttackEntry("one-pixel", "black box", "ART", OnePixel, levels=("input",)),
    "square": AttackEntry("Square", "black box", "ART", Square),
    "hopskipjump": AttackEntry("HopSkipJump", "black box", "ART", HopSkipJump),
    "deepfool": AttackEntry("DeepFool", "white box", "Foolbox", DeepFool),
    "cw": AttackEntry("C&W", "white box", "Foolbox", CarliniWagner),
    "auna": AttackEntry("AUNA at one ε", "black box", "Foolbox", AdditiveUniformNoise),
    "auna-grown": AttackEntry("AUNA", "black box", "own", GrowingUniformNoise),
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
        images_only=True,
    ),
    "s-ala": AttackEntry("S-ALA", "adaptive", "own", NeuronAttack, {"method": "s-ala"}),
    "r-ala": AttackEntry("R-ALA", "adaptive", "own", NeuronAttack, {"method": "r-ala"}),
    "pgd-e2e": AttackEntry("end-to-end PGD", "adaptive", "own", EndToEndPgd),
}
"""All attacks by name.

``cli/_registered.py`` reads the names from this source, so an entry's ``levels`` and
``images_only`` must be literals.
"""


def attack_entry(name: str) -> AttackEntry:
    """Return the entry of an attack.

    Raises:
        AttackError: If the name is unknown; the message suggests close matches.
    """
    if name not in ATTACKS:
        raise AttackError(f"no attack {name!r}; {suggest_names(str(name), ATTACKS)}")
    return ATTACKS[name]


def names_at(level: Level, *, images: bool = False) -> list[str]:
    """Return the names of the attacks at a level; those for images only if ``images`` is true."""
    return [
        name
        for name, entry in ATTACKS.items()
        if level in entry.levels and (images or not entry.images_only)
    ]


def make_attack(
    name: str,
    *,
    eps: float | None = None,
    level: Level = "raw",
    settings: Mapping[str, Any] | None = None,
) -> Attack:
    """Return an attack by name; settings that are missing or None keep their defaults.

    Args:
        name: Name of the attack, one of ``ATTACKS``.
        eps: Largest change of a value, or, for ``pgd-l2``, Euclidean norm of the whole change, in
            units of the input.
        level: Level at which the attack is to work.
        settings: Other settings by name, e.g. ``{"steps": 40}``.

    Raises:
        AttackError: If the name is unknown, a setting is unknown or out of range, or the attack
            does not work at the level.
    """
    entry = attack_entry(name)
    if level not in entry.levels and entry.images_only:
        raise AttackError(
            f"{name} is for images only, expected an attack on recordings (level {level!r}); "
            f"choose one of {', '.join(names_at(level))}"
        )
    if level not in entry.levels:
        raise AttackError(
            f"{name} cannot work at level {level!r}, expected {' or '.join(entry.levels)}; for "
            f"level {level!r} choose one of {', '.join(names_at(level))}"
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
            f"{name} needs eps, the largest change of a value in units of the input, or, for "
            "pgd-l2, the Euclidean norm of the whole change; pass eps, e.g. 0.002 for a waveform, "
            "0.0157 (4/255) for a spectrogram, 0.2 for pgd-l2"
        )
    return entry.kind(**entry.fixed, **given)
