"""Read the YAML file that describes an evaluation, and check it before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from nip_audio.attacks.registry import Level, attack_entry, make_attack
from nip_audio.core.near import suggest_names
from nip_audio.errors import AttackError, InputError
from nip_audio.models.cards import CARD_NAME, directory_of, is_path
from nip_audio.purifiers.registry import DEFENCES, defence_entry

__all__ = [
    "BackEnd",
    "OF_THE_PLAN",
    "GatePlan",
    "AttackPlan",
    "EvaluationConfig",
    "Protocol",
    "PROTOCOLS",
    "SystemPlan",
    "WITH_THE_MODEL",
    "read_config",
]

BackEnd = Literal["cosine", "plda"]
"""What compares embeddings with enrolled speakers."""

Protocol = str
PROTOCOLS: Mapping[str, str] = {
    "unaware": "the attacker knows the model, and nothing of the defence",
    "adaptive": "the attacker knows model and defence, but not the defender's random draws",
    "transfer": "the attacker knows another model",
}
"""What the attacker knows, by protocol. There is no oracle protocol, in which the defence knows the
label: none of the defences here needs it."""


WITH_THE_MODEL = "guided"
"""Fitted defence that a model can come with, so that it needs no ``path``."""

OF_THE_PLAN = ("name", "gate", "systems")
"""Keys of a defence's plan that are not settings of the defence."""


@dataclass(frozen=True)
class SystemPlan:
    """One system under evaluation.

    Attributes:
        name: Name of the system in tables.
        model: Name, directory or source of a model, as ``load_pretrained`` takes it.
        subset: First folder of the split's paths, which selects the recordings; empty for all.
        crop_s: Length of the clips in seconds; None keeps spans whole.
        enrol: Whether the speakers are enrolled from the ``train`` role (CSI-E), rather than the
            model's own classes (CSI-NE). A model that only embeds needs it.
        back_end: What compares embeddings with enrolled speakers: ``cosine``, or ``plda`` for the
            PLDA that comes with the model.
    """

    name: str
    model: str
    subset: str = ""
    crop_s: float | None = None
    enrol: bool = False
    back_end: BackEnd = "cosine"


@dataclass(frozen=True)
class GatePlan:
    """The detector that decides which inputs a purifier changes.

    Attributes:
        calibration: File of the detector's calibration; ``{system}`` in it stands for the system's
            name. None takes the calibration that comes with the model.
        false_positive_rate: Share of clean inputs that the detector may flag.
    """

    calibration: Path | None = None
    false_positive_rate: float = 0.01


@dataclass(frozen=True)
class AttackPlan:
    """One attack, run at one or more strengths.

    Attributes:
        attack: Name of the attack in the registry.
        level: What the attack changes: the waveform (``raw``) or the model's input (``input``).
        eps: Strengths ε to run; (None,) for an attack without a strength.
        items: Largest number of clips to attack.
        batch: Clips per batch.
        settings: Other settings of the attack.
        systems: Names of the systems to attack; empty for all.
        protocol: What the attacker knows, see ``PROTOCOLS``.
        source: For ``transfer``: name of the system that the attacker knows.
        detector: For ``adaptive``: whether to attack the model together with the NCCR detector,
            rather than through each purifier.
        behind: For ``adaptive``: names of the defences to attack, as in the tables; empty for all.
    """

    attack: str
    level: Level = "raw"
    eps: tuple[float | None, ...] = (None,)
    items: int = 50
    batch: int = 25
    settings: Mapping[str, Any] = field(default_factory=dict)
    systems: tuple[str, ...] = ()
    protocol: Protocol = "unaware"
    source: str | None = None
    detector: bool = False
    behind: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvaluationConfig:
    """An evaluation: every combination of systems, attacks and defences.

    Attributes:
        title: Heading of the tables.
        data_root: Folder of the corpus.
        split: CSV file that gives each recording its role.
        systems: Systems under attack.
        attacks: Attacks; each set of examples is made once and then given to every defence.
        defences: Purifiers and defences inside the network, with their settings, in addition to
            those that are always tested. One that names ``systems`` is used for these only. The
            ``path`` of a fitted one may contain ``{system}``, which stands for the system's name;
            without one, ``guided`` is the purifier that comes with the model.
        detect: Clips of each cell that the detectors judge; 0 switches detectors off.
        controls: Clips that get harmless changes; 0 for none.
        sound: Clips, unattacked and of each cell, whose purified sound is written and measured; 0
            for none. A defence success rate needs 30.
        seed: Seed of everything random in the run.
    """

    title: str
    data_root: Path
    split: Path
    systems: tuple[SystemPlan, ...]
    attacks: tuple[AttackPlan, ...]
    defences: tuple[Mapping[str, Any], ...] = ()
    detect: int = 0
    controls: int = 0
    sound: int = 0
    seed: int = 1234


def read_config(
    path: Path, *, data_root: Path | None = None, split: Path | None = None
) -> EvaluationConfig:
    """Read and check a configuration.

    Args:
        path: YAML file; paths in it are relative to its folder.
        data_root: Folder of the corpus, in place of the one that the file names.
        split: CSV file of the split, in place of the one that the file names.

    Raises:
        InputError: If the file is not YAML, or a key, name, unit or combination is wrong; the text
            says where.
        AttackError: If an attack is unknown, or its settings are invalid.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as err:
        raise InputError(f"{path} cannot be read as YAML ({err})") from err
    top = _checked(
        data,
        f"{path}",
        required=("title", "systems", "attacks"),
        optional=("data", "defences", "detect", "controls", "sound", "seed"),
    )
    places = _checked(top.get("data", {}), f"{path}: data", optional=("root", "split"))
    systems = tuple(
        _system_plan(str(name), plan, f"{path}: systems.{name}", path)
        for name, plan in _checked(top["systems"], f"{path}: systems").items()
    )
    attacks = tuple(
        _attack_plan(plan, f"{path}: attacks[{i}]", [s.name for s in systems])
        for i, plan in enumerate(_list(top["attacks"], f"{path}: attacks"))
    )
    if not systems or not attacks:
        raise InputError(f"{path} has no systems or no attacks; name at least one of each")
    return EvaluationConfig(
        title=str(top["title"]),
        data_root=_place(data_root, path, places, "root"),
        split=_place(split, path, places, "split"),
        systems=systems,
        attacks=attacks,
        defences=tuple(
            _defence(d, f"{path}: defences[{i}]", path, [s.name for s in systems])
            for i, d in enumerate(_list(top.get("defences", []), f"{path}: defences"))
        ),
        detect=_whole(top.get("detect", 0), f"{path}: detect", least=0),
        controls=_whole(top.get("controls", 0), f"{path}: controls", least=0),
        sound=_whole(top.get("sound", 0), f"{path}: sound", least=0),
        seed=_whole(top.get("seed", 1234), f"{path}: seed"),
    )


def _system_plan(name: str, data: object, where: str, config: Path) -> SystemPlan:
    optional = ("subset", "crop_s", "enrol", "back_end")
    plan = _checked(data, where, required=("model",), optional=optional)
    crop_s, enrol = plan.get("crop_s"), plan.get("enrol", False)
    back_end = plan.get("back_end", "cosine")
    if crop_s is not None and (type(crop_s) not in (int, float) or not 0 < crop_s < math.inf):
        raise InputError(f"{where}: crop_s is {crop_s!r}, expected seconds such as 2; correct it")
    if not isinstance(enrol, bool):
        raise InputError(f"{where}: enrol is {enrol!r}, expected true or false; correct it")
    if back_end not in get_args(BackEnd):
        raise InputError(f"{where}: back_end is {back_end!r}, expected cosine or plda; correct it")
    if back_end == "plda" and not enrol:
        raise InputError(
            f"{where}: back_end is plda, expected enrol: true beside it; a model's own classes "
            "have a head of their own"
        )
    given = str(plan["model"])
    beside = (config.parent / given).absolute()
    named = not is_path(given) and directory_of(given) is not None
    model = beside if not named and (beside / CARD_NAME).is_file() else given
    return SystemPlan(name, str(model), str(plan.get("subset", "")), crop_s, enrol, back_end)


def _attack_plan(data: object, where: str, systems: Sequence[str]) -> AttackPlan:
    plan = _checked(
        data,
        where,
        required=("attack",),
        optional=(
            *("level", "eps", "items", "batch", "settings"),
            *("systems", "protocol", "source", "detector", "behind"),
        ),
    )
    eps = tuple(_strength(e, where) for e in _list(plan.get("eps", [None]), f"{where}.eps"))
    chosen = _systems(plan.get("systems", []), where, systems)
    protocol = str(plan.get("protocol", "unaware"))
    _known(protocol, PROTOCOLS, f"{where}: protocol")
    source = plan.get("source")
    if (source is None) == (protocol == "transfer"):
        raise InputError(
            f"{where}: source goes with protocol transfer; name a system as source, or leave it out"
        )
    if source is not None:
        _known(str(source), systems, f"{where}: source")
    settings = _checked(plan.get("settings", {}), f"{where}.settings")
    made = AttackPlan(
        attack=str(plan["attack"]),
        level=plan.get("level", "raw"),
        eps=eps,
        items=_whole(plan.get("items", 50), f"{where}.items"),
        batch=_whole(plan.get("batch", 25), f"{where}.batch"),
        settings=settings,
        systems=chosen,
        protocol=protocol,
        source=source,
        detector=bool(plan.get("detector", False)),
        behind=tuple(str(d) for d in _list(plan.get("behind", []), f"{where}.behind")),
    )
    if made.detector and (protocol != "adaptive" or made.level != "raw"):
        raise InputError(f"{where}: detector is for protocol adaptive at level raw; leave it out")
    if made.behind and (protocol != "adaptive" or made.detector):
        raise InputError(
            f"{where}: behind is for protocol adaptive, through purifiers; leave it out"
        )
    if attack_entry(made.attack).images_only:
        raise AttackError(f"{where}: {made.attack} is for images only; leave it out")
    for e in eps:  # finds wrong names, units and combinations before the run
        make_attack(made.attack, level=made.level, eps=e, settings=settings)
    return made


def _systems(data: object, where: str, systems: Sequence[str]) -> tuple[str, ...]:
    chosen = tuple(str(name) for name in _list(data, f"{where}.systems"))
    for name in chosen:
        _known(name, systems, f"{where}: system")
    return chosen


def _strength(value: object, where: str) -> float | None:
    """Read ε as a number or as a fraction such as 4/255."""
    if value is None:
        return None
    try:
        return float(Fraction(str(value)))
    except (ValueError, ZeroDivisionError) as err:
        raise InputError(f"{where}: eps is {value!r}, expected e.g. 0.002 or 4/255") from err


def _defence(data: object, where: str, config: Path, systems: Sequence[str]) -> Mapping[str, Any]:
    if isinstance(data, str):
        data = {"name": data}
    plan = _checked(data, where)
    name = str(plan.get("name", ""))
    _known(name, DEFENCES, f"{where}: defence")
    entry = defence_entry(name)
    settings = _checked(
        {key: value for key, value in plan.items() if key not in OF_THE_PLAN},
        f"{where} ({name})",
        optional=entry.settings,
    )
    missing = [key for key in entry.required if key not in settings]
    if missing == ["path"] and name != WITH_THE_MODEL:
        raise InputError(
            f"{where}: {name} lacks path, the file of the fitted one; write {{name: {name}, path: "
            "FILE}"
        )
    if missing and missing != ["path"]:
        raise InputError(f"{where}: {name} lacks {', '.join(missing)}; add it")
    if "path" in settings:  # may contain {system}, because a purifier is fitted to one model
        settings["path"] = config.parent / str(settings["path"])
    if "systems" in plan:
        settings["systems"] = _systems(plan["systems"], where, systems)
    if "gate" in plan:
        settings["gate"] = _gate(plan["gate"], f"{where}: gate of {name}", config)
    return {"name": name, **settings}


def _gate(data: object, where: str, config: Path) -> GatePlan:
    plan = _checked(data, where, optional=["calibration", "fpr"])
    rate = plan.get("fpr", GatePlan.false_positive_rate)
    if not isinstance(rate, int | float):
        raise InputError(f"{where}: fpr is {rate!r}, expected a share such as 0.01")
    path = plan.get("calibration")
    return GatePlan(None if path is None else config.parent / str(path), float(rate))


def _known(name: str, names: Sequence[str] | Mapping[str, Any], what: str) -> None:
    if name not in names:
        raise InputError(f"{what} {name!r} is unknown; {suggest_names(name, names)}")


def _checked(
    data: object,
    where: str,
    *,
    required: Sequence[str] = (),
    optional: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Check that data is a mapping with the expected keys; without any given, all are allowed."""
    if not isinstance(data, dict):
        raise InputError(f"{where} is {data!r}, expected keys and values")
    missing = [key for key in required if key not in data]
    if missing:
        raise InputError(f"{where} lacks {', '.join(missing)}; add it")
    if required or optional is not None:
        for key in data:
            _known(str(key), [*required, *(optional or ())], f"{where}: key")
    return data


def _list(data: object, where: str) -> list[Any]:
    if not isinstance(data, list):
        raise InputError(f"{where} is {data!r}, expected a list")
    return data


def _whole(value: object, where: str, *, least: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{where} is {value!r}, expected a whole number of at least {least}")
    return value


def _place(given: Path | None, config: Path, places: Mapping[str, Any], key: str) -> Path:
    if given is None and key not in places:
        raise InputError(f"{config} has no data.{key}; add it, or pass `data_{key}`")
    path = config.parent / str(places[key]) if given is None else given
    if not path.exists():
        raise InputError(
            f"{path} does not exist; data.{key} is relative to the configuration's folder, or pass "
            f"`data_{key}`"
        )
    return path
