"""Say what a configuration of an evaluation will do, and write one to start from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nip_audio.audio.corpus import ROLES, read_split
from nip_audio.core.state import write_atomic
from nip_audio.evaluation.config import PROTOCOLS, AttackPlan, EvaluationConfig, SystemPlan

__all__ = ["TEMPLATE", "explain", "write_template"]

TEMPLATE = """\
# What nip-audio evaluate measures: every attack on every system, and behind every defence.
# Paths are relative to this file. See what it will do: nip-audio evaluate FILE --explain

title: How much of PGD do two defences undo?   # heading of the tables

data:                       # or --data-root and --data-split
  root: .                   # folder of the corpus
  split: split.csv          # CSV: path,speaker,role[,start_s,end_s]; role is train, calibrate, test

systems:                    # name in the tables: what it is
  resnet34:
    model: resnet34-libri30 # name, directory or source of a model (nip-audio models)
    # subset: test-clean    # first folder of the paths in the split; default: all
    # crop_s: 2             # length of the clips in seconds; default: whole recordings
    # enrol: true           # enrol the speakers of role train; default: the model's own classes
    # back_end: plda        # compare with enrolled speakers by the model's PLDA; default: cosine

attacks:
  - attack: pgd             # nip-audio attack --help lists the names
    eps: [0.002]            # strengths; 0.002 of full scale, or fractions such as 4/255
    # level: raw            # raw changes the waveform, input the model's own input
    # items: 50             # clips to attack
    # batch: 25             # clips at once
    # settings: {steps: 40} # nip-audio attack --method pgd --show-settings lists them
    # systems: [resnet34]   # default: all
    # protocol: unaware     # or adaptive (the attacker knows the defence), transfer (with source)
    # source: other         # for transfer: the system that the attacker knows
    # behind: [guided]      # for adaptive: defences to attack through; default: all
    # detector: true        # for adaptive at level raw: attack the detector, not the defences

defences:                   # no defence and noise are always tested
  - guided                  # the purifier that comes with the model; path: names another file
  - {name: quantization, bits: 8}   # settings: nip-audio purify --method NAME --show-settings
  # - {name: guided, gate: {calibration: my.calibration, fpr: 0.05}}  # purify what is flagged

detect: 0                   # clips of each cell that detectors judge; needs the role calibrate
controls: 0                 # clips that get harmless changes
sound: 0                    # clips of each cell whose purified sound is written and measured
seed: 1234
"""
"""Configuration to start from, with every key."""


def write_template(path: Path, *, force: bool = False) -> None:
    """Write ``TEMPLATE``.

    Raises:
        OutputError: If the file exists and ``force`` is false, or cannot be written.
    """
    write_atomic(path, TEMPLATE.encode(), force=force)


def explain(config: EvaluationConfig) -> dict[str, Any]:
    """Return what an evaluation will do, without doing it, as plain JSON values.

    ``systems`` has the recordings of each role, ``attacks`` a sentence for each attack,
    ``defences`` their names, and ``cells`` the number of attacked sets.

    Raises:
        InputError: If the split cannot be read.
    """
    spans = read_split(config.split)
    systems = {}
    for plan in config.systems:
        chosen = [s for s in spans if not plan.subset or s.path.split("/")[0] == plan.subset]
        roles = Counter(span.role for span in chosen)
        systems[plan.name] = {
            "model": plan.model,
            "speakers": _speakers(plan),
            "recordings": {role: roles[role] for role in ROLES},
        }
    attacked = [(plan, _attacked(plan, config.systems)) for plan in config.attacks]
    return {
        "title": config.title,
        "systems": systems,
        "attacks": [_sentence(plan, names) for plan, names in attacked],
        "defences": ["none", "noise 20 dB", *map(_defence, config.defences)],
        "cells": sum(len(plan.eps) * len(names) for plan, names in attacked),
        "detected_clips": config.detect,
        "control_clips": config.controls,
        "sound_clips": config.sound,
        "seed": config.seed,
    }


def _speakers(plan: SystemPlan) -> str:
    if not plan.enrol:
        return "the model's own classes"
    return "enrolled from role train" + (", compared by PLDA" if plan.back_end == "plda" else "")


def _attacked(plan: AttackPlan, systems: tuple[SystemPlan, ...]) -> list[str]:
    names = plan.systems or tuple(system.name for system in systems)
    return [name for name in names if name != plan.source]


def _sentence(plan: AttackPlan, names: list[str]) -> str:
    strengths = ", ".join(f"{eps:g}" for eps in plan.eps if eps is not None)
    where = "the waveform" if plan.level == "raw" else "the model's input"
    parts = [f"{plan.attack} changes {where}" + (f" by ε {strengths}" if strengths else "")]
    parts.append(f"of at most {plan.items} clips for {', '.join(names) or 'no system'}")
    if plan.detector:
        through = ", together with the detector"
    elif plan.protocol == "adaptive":
        through = f", through {', '.join(plan.behind) or 'every defence'}"
    else:
        through = "" if plan.source is None else f", made on {plan.source}"
    settings = ", ".join(f"{key}={value}" for key, value in plan.settings.items())
    more = f" ({settings})" if settings else ""
    return f"{' '.join(parts)}{through}{more}: {PROTOCOLS[plan.protocol]}"


def _defence(plan: Mapping[str, Any]) -> str:
    settings = {k: v for k, v in plan.items() if k not in ("name", "gate", "systems")}
    told = ", ".join(f"{key}={value}" for key, value in settings.items())
    gated = " where a detector flags a clip" if "gate" in plan else ""
    only = f" for {', '.join(plan['systems'])}" if plan.get("systems") else ""
    return str(plan["name"]) + (f" ({told})" if told else "") + gated + only
