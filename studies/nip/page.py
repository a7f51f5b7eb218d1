"""Write docs/results/nip.md: python -m studies.nip.page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from nip_audio.evaluation.defences import NO_DEFENCE
from nip_audio.evaluation.statistics import proportion
from nip_audio.evaluation.tables import (
    LEVELS,
    NOT_EVALUATED,
    NOT_PUBLISHED,
    accuracy_table,
    attack_tables,
    defence_table,
    dsr_table,
    header,
    markdown,
    missing_attacks,
    share,
    strength_of,
)
from nip_audio.purifiers.noise import MATCHED
from nip_audio.purifiers.training_attacks import FAMILIES
from studies._lib.pages import Page
from studies.attacks.page import of_all

NAMES = (
    *("nip", "nip_models", "nip_adaptive", "purifier_time"),
    *("nip_more", "nip_left_out", "nip_trained", "nip_combined", "nip_seeds"),
)


def parts(results: Mapping[str, Any]) -> dict[str, object]:
    """Fill the template."""
    first, others, adaptive, times = (results[name] for name in NAMES[:4])
    more, left_out, trained, combined, seeds = (results[name] for name in NAMES[4:])
    done = len(first["cells"]) + len(others["cells"])
    missing = len(first["unfinished"]) + len(others["unfinished"])
    return {
        "header": header(first),
        "cells": f"{done} of {done + missing}",
        "summary": summary_table(first, others),
        "known": known_table(adaptive),
        "combined": known_table(combined),
        "seeds": seeds_table(seeds),
        "defences": "\n".join(of_all(results, defence_table) for results in (first, others)),
        "guided": "\n".join(
            of_all(results, lambda r, s: dsr_table(r, s, "guided")) for results in (first, others)
        ),
        "more": of_all(more, defence_table),
        "gated": gated_table(more),
        "left_out": of_all(left_out, left_out_table),
        "trained": trained_table(trained),
        "accuracy": accuracy_table(adaptive),
        "adaptive": of_all(adaptive, attack_tables),
        "times": time_table(times),
        "not_published": NOT_PUBLISHED,
        **{f"spread_{name}": seed_spread(seeds, name) for name in ("audionet", "xvector")},
    }


def summary_table(*evaluations: Mapping[str, Any]) -> str:
    """Accuracy without an attacker, and mean success rates over the attacks of one strength."""
    kinds = {
        "waveform, ε 0.0005": ("raw", 0.0005),
        "waveform, ε 0.002": ("raw", 0.002),
        "spectrogram, ε 4/255": ("input", 4 / 255),
        "spectrogram, ε 8/255": ("input", 8 / 255),
    }
    rows = []
    for results in evaluations:
        for name, system in results["systems"].items():
            before, after = (
                f"{100 * system['accuracy'][d]['value']:.1f}" for d in (NO_DEFENCE, "guided")
            )
            means = [_mean_rate(results, name, *kind) for kind in kinds.values()]
            rows.append([name, before, after, *means])
    return markdown(["system", "clean, undefended", "clean, guided", *kinds], rows)


def _mean_rate(results: Mapping[str, Any], system: str, level: str, eps: float) -> str:
    rates = [
        row["dsr"]["value"]
        for cell in results["cells"]
        if (cell["system"], cell["level"]) == (system, level)
        and cell["eps"] is not None
        and math.isclose(cell["eps"], eps)
        for row in cell["defences"]
        if row["defence"] == "guided" and row["dsr"] is not None
    ]
    return f"{100 * sum(rates) / len(rates):.1f}, worst {100 * min(rates):.1f}"


def known_table(results: Mapping[str, Any]) -> str:
    """Robust accuracy behind the defences that every strong attack was made against."""
    rows = []
    for name, system in results["systems"].items():
        attacked = dict.fromkeys(
            cell["attacked_defence"]
            for cell in results["cells"]
            if (cell["system"], cell["protocol"]) == (name, "adaptive")
        )
        for defence in attacked:
            clean = share(system["accuracy"][defence])
            rows.append([name, defence, clean, *robust_columns(results, name, defence)])
    return markdown(["system", "defence", "clean", *robust_names(results)], rows)


GATED = "guided, gated by NCCR at {:g}"
LEFT_OUT = "guided + {} left out"
KINDS = {
    "pgd": "gradient",
    "cw": "minimum",
    "deepfool": "minimum",
    "jsma": "sparse",
    "fakebob": "score",
    "square": "score",
    "uap": "universal",
    "boundary": "decision",
    "hopskipjump": "decision",
}


def gated_table(results: Mapping[str, Any]) -> str:
    """Write guided NIP on all inputs, and on those that a detector flags only."""
    names = ["guided", *(GATED.format(rate) for rate in (0.01, 0.05))]
    ((_, system),) = results["systems"].items()
    accuracy = [share(system["accuracy"][name]) for name in (NO_DEFENCE, *names)]
    rows = [["benign clips, accuracy", "", str(system["clips"]), *accuracy]]
    for cell in results["cells"]:
        found = {row["defence"]: row["dsr"] for row in cell["defences"]}
        if cell["level"] == "raw":  # a detector listens to the sound
            rates = [share(found[name]) for name in names]
            rows.append(
                [f"DSR, {attack_of(cell)}", strength_of(cell), str(cell["successes"]), "0", *rates]
            )
    columns = ["what", "ε", "clips", "undefended", "guided", "gated at 1 %", "gated at 5 %"]
    return markdown(columns, rows)


def left_out_table(results: Mapping[str, Any], system: str) -> str:
    """Success rates of purifiers that know all kinds of attacks, and all but one."""
    names = results["systems"][system]["accuracy"]
    families = [family for family in FAMILIES if LEFT_OUT.format(family) in names]
    accuracy = [share(names["guided"]), *(short(names[LEFT_OUT.format(f)]) for f in families)]
    before, noise = short(names[NO_DEFENCE]), short(names[f"{MATCHED}guided"])
    rows = [[f"none: benign clips, undefended {before}", "", "", "", "", *accuracy, noise]]
    for cell in (cell for cell in results["cells"] if cell["system"] == system):
        found = {row["defence"]: row["dsr"] for row in cell["defences"]}
        kind = KINDS[cell["attack"]]
        rates = [short(found[LEFT_OUT.format(family)]) for family in families]
        own = families.index(kind)
        rates[own] = f"**{rates[own]}**"
        what = [attack_of(cell), LEVELS[cell["level"]], strength_of(cell), kind]
        noise = short(found[f"{MATCHED}guided"])
        rows.append([*what, str(cell["successes"]), share(found["guided"]), *rates, noise])
    columns = ["attack", "at", "ε", "its kind", "fooled by", "none left out", *families]
    return markdown([*columns, "noise as strong"], rows)


def attack_of(cell: Mapping[str, Any]) -> str:
    """Title of an attack, with its steps where they are not the usual ones."""
    steps = cell["settings"].get("steps")
    return f"{cell['title']}-{steps}" if cell["attack"] == "pgd" else str(cell["title"])


def short(interval: Mapping[str, float] | None) -> str:
    """Write a proportion in percent; without its interval, where a row has many."""
    return NOT_EVALUATED if interval is None else f"{100 * interval['value']:.0f}"


def trained_table(results: Mapping[str, Any]) -> str:
    """Write the robust accuracy of models trained with a defence."""
    rows = [
        [
            name,
            share(system["accuracy"][NO_DEFENCE]),
            *robust_columns(results, name, NO_DEFENCE),
        ]
        for name, system in results["systems"].items()
    ]
    return markdown(["model", "clean", *robust_names(results)], rows)


def seeds_table(results: Mapping[str, Any]) -> str:
    """Success rates of purifiers that differ in the seed of their training alone."""
    rows, attacks = [], []
    for name, system in results["systems"].items():
        cells = [cell for cell in results["cells"] if cell["system"] == name]
        attacks = [f"{LEVELS[cell['level']]}, ε {strength_of(cell)}" for cell in cells]
        rates = [
            share(row["dsr"])
            for cell in cells
            for row in cell["defences"]
            if row["defence"] == "guided"
        ]
        rows.append([name, *(short(system["accuracy"][d]) for d in (NO_DEFENCE, "guided")), *rates])
    return markdown(["system", "clean, undefended", "clean, guided", *attacks], rows)


def seed_spread(results: Mapping[str, Any], model: str) -> str:
    """Largest distance of waveform rates between purifiers that differ in the seed alone."""
    by_attack: dict[str, list[float]] = {}
    for cell in results["cells"]:
        if cell["system"].startswith(model) and cell["level"] == "raw":
            (row,) = (row for row in cell["defences"] if row["defence"] == "guided")
            by_attack.setdefault(strength_of(cell), []).append(100 * row["dsr"]["value"])
    return f"{max(max(rates) - min(rates) for rates in by_attack.values()):.0f}"


def robust_names(results: Mapping[str, Any]) -> list[str]:
    """Return the names of the columns of ``robust_columns``."""
    return [
        title
        for eps in strengths_of(results)
        for title in (f"robust, ε {eps:g}", "clips that each attack leaves, %")
    ]


def robust_columns(results: Mapping[str, Any], system: str, defence: str) -> list[str]:
    """Worst case over strong attacks at every ε, as a share of all clips; and each attack alone.

    Of the clips that the undefended model classifies correctly a sample is attacked: its
    interval, and its share of all clips.
    """
    worst = {
        row["eps"]: row
        for row in results["robust"]
        if (row["system"], row["defence"], row["level"]) == (system, defence, "raw")
    }
    named = results["systems"][system]["accuracy"][NO_DEFENCE]["value"]
    columns = []
    for eps in strengths_of(results):
        found = worst.get(eps, {"survive": None, "why": "no attack at this ε"})
        if found["survive"] is None:
            missing = missing_attacks(found["why"])
            columns += ["not published" if missing else NOT_EVALUATED, missing or found["why"]]
            continue
        held = np.array([bit == "1" for bit in found["survivors"]])
        clips = [str(number) for number in range(len(held))]
        holds = proportion(held, clips, seed=results["seed"]).to_json()
        each = [
            f"{cell['title']}{', transferred' * (cell['protocol'] == 'transfer')} {left:.0f}"
            for cell in results["cells"]
            if (cell["system"], cell["eps"]) == (system, eps)
            and (left := left_by(cell, defence)) is not None
        ]
        columns += [share({key: named * holds[key] for key in holds}), "; ".join(each)]
    return columns


def left_by(cell: Mapping[str, Any], defence: str) -> float | None:
    """Percent of the clips that an attack on a defence leaves; None if it is on another."""
    if cell["attacked_defence"] == defence:
        return 100 * (1 - float(cell["asr"]["value"]))
    if cell["protocol"] != "transfer":
        return None
    rights = [row["right"] for row in cell["defences"] if row["defence"] == defence]
    return 100 * rights[0].count("1") / len(rights[0]) if rights else None


def strengths_of(results: Mapping[str, Any]) -> list[float]:
    """ε of the robust accuracies."""
    return sorted({row["eps"] for row in results["robust"] if row["level"] == "raw"})


def time_table(times: Mapping[str, Any]) -> str:
    """Seconds of a batch: the model alone, the purifier alone, and their ratio."""
    columns = ["model", "its parameters", "forward pass, s", "purification, s", "ratio"]
    rows = [
        [
            row["model"],
            f"{row['parameters']:,}",
            f"{row['forward_s']:.2f}",
            f"{row['purify_s']:.2f}",
            "{:.2f} [{:.2f}, {:.2f}]".format(row["ratio"], *row["ratio_quartiles"]),
        ]
        for row in times["rows"]
    ]
    return markdown(columns, rows)


PAGE = Page("nip", __file__, NAMES, parts)


if __name__ == "__main__":
    PAGE.run()
