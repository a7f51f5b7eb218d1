"""Write docs/results/nip.md: python -m studies.nip.page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from nip_audio.evaluation.defences import NO_DEFENCE
from nip_audio.evaluation.sound import sound_table
from nip_audio.evaluation.tables import (
    LEVELS,
    NOT_EVALUATED,
    NOT_PUBLISHED,
    accuracy_table,
    attack_tables,
    defence_table,
    dsr_table,
    header,
    missing_attacks,
    strength_of,
)
from nip_audio.purifiers.noise import MATCHED
from nip_audio.purifiers.training_attacks import FAMILIES
from studies._lib.numbers import percent
from studies._lib.pages import Page
from studies._lib.paired import Paired, paired_tests
from studies._lib.shares import share_of
from studies._lib.tables import Columns, each, table
from studies.attacks.page import of_all

NAMES = (
    *("nip", "nip_models", "nip_adaptive", "purifier_time"),
    *("defence_time", "nip_sound"),
    *("nip_more", "nip_left_out", "nip_trained", "nip_combined", "nip_seeds"),
)


Row = Mapping[str, Any]
CLEAN = {NO_DEFENCE: "clean, undefended", "guided": "clean, guided"}


def parts(results: Mapping[str, Any]) -> dict[str, object]:
    """Fill the template."""
    first, others, adaptive, times, defence_times, sound = (results[name] for name in NAMES[:6])
    more, left_out, trained, combined, seeds = (results[name] for name in NAMES[6:])
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
        "defence_times": defence_time_table(defence_times),
        "sound": of_all(sound, sound_table),
        "sound_verdict": sound_verdict(sound),
        "paired": paired_table(first, others, more),
        "not_published": NOT_PUBLISHED,
        **{f"spread_{name}": seed_spread(seeds, name) for name in ("audionet", "xvector")},
    }


def dsr_of(cell: Row, defence: str) -> Row | None:
    """Success rate of a defence against a cell's attack."""
    rates = [row["dsr"] for row in cell["defences"] if row["defence"] == defence]
    return rates[0] if rates else None


def summary_table(*evaluations: Row) -> str:
    """Accuracy without an attacker, and mean success rates over the attacks of one strength."""
    kinds = {
        ("raw", 0.0005): "waveform, ε 0.0005",
        ("raw", 0.002): "waveform, ε 0.002",
        ("input", 4 / 255): "spectrogram, ε 4/255",
        ("input", 8 / 255): "spectrogram, ε 8/255",
    }

    def mean_rate(kind: tuple[str, float], row: tuple[str, Row]) -> str:
        level, eps = kind
        found = [
            dsr_of(cell, "guided")
            for cell in row[1]["cells"]
            if (cell["system"], cell["level"]) == (row[0], level)
            and cell["eps"] is not None
            and math.isclose(cell["eps"], eps)
        ]
        rates = [rate["value"] for rate in found if rate is not None]
        return f"{100 * sum(rates) / len(rates):.1f}, worst {100 * min(rates):.1f}"

    def clean(defence: str, row: tuple[str, Row]) -> str:
        return f"{100 * row[1]['systems'][row[0]]['accuracy'][defence]['value']:.1f}"

    rows = [(name, results) for results in evaluations for name in results["systems"]]
    columns: Columns = {
        "system": lambda row: row[0],
        **each(CLEAN, clean),
        **each(kinds, mean_rate),
    }
    return table(columns, rows)


PUBLISHED_NIP = "nip-pool 5/5 pool descent q0.9"


def paired_table(*evaluations: Row) -> str:
    """Paired t-tests of both forms of NIP against every other defence (the paper's Table III)."""
    rows: list[tuple[str, Paired]] = []
    for results in evaluations:
        for system in results["systems"]:
            cells = [
                {d["defence"]: d["dsr"]["value"] for d in cell["defences"] if d["dsr"]}
                for cell in results["cells"]
                if cell["system"] == system and cell["protocol"] == "unaware"
            ]
            for own in ("guided", PUBLISHED_NIP):
                tests = paired_tests(cells, own)
                kept = [t for t in tests if not t.other.startswith(MATCHED) or own in t.other]
                rows += [(system, test) for test in kept]
    columns: Columns = {
        "system": lambda row: row[0],
        "of": lambda row: row[1].own,
        "against": lambda row: row[1].other,
        "attacks": lambda row: row[1].attacks,
        "ahead on": lambda row: row[1].ahead,
        "mean difference, points": lambda row: f"{100 * row[1].lead:+.1f}",
        "p": lambda row: "–" if row[1].p is None else f"{row[1].p:.2g}",
    }
    return table(columns, rows)


def known_table(results: Row) -> str:
    """Robust accuracy behind the defences that every strong attack was made against."""
    attacked = {
        (cell["system"], cell["attacked_defence"]): None
        for cell in results["cells"]
        if cell["protocol"] == "adaptive"
    }
    rows = [pair for name in results["systems"] for pair in attacked if pair[0] == name]
    columns: Columns = {
        "system": lambda row: row[0],
        "defence": lambda row: row[1],
        "clean": lambda row: percent(results["systems"][row[0]]["accuracy"][row[1]]),
        **robust_columns(results),
    }
    return table(columns, rows)


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


def gated_table(results: Row) -> str:
    """Write guided NIP on all inputs, and on those that a detector flags only."""
    ((_, system),) = results["systems"].items()
    # a detector listens to the sound
    rows = [None, *(cell for cell in results["cells"] if cell["level"] == "raw")]

    def rate(name: str, cell: Row | None) -> str:
        return percent(system["accuracy"][name] if cell is None else dsr_of(cell, name))

    gated = {GATED.format(share): f"gated at {100 * share:g} %" for share in (0.01, 0.05)}
    columns: Columns = {
        "what": lambda c: f"DSR, {attack_of(c)}" if c else "benign clips, accuracy",
        "ε": lambda c: strength_of(c) if c else "",
        "clips": lambda c: c["successes"] if c else system["clips"],
        "undefended": lambda c: "0" if c else percent(system["accuracy"][NO_DEFENCE]),
        **each({"guided": "guided", **gated}, rate),
    }
    return table(columns, rows)


def left_out_table(results: Row, system: str) -> str:
    """Success rates of purifiers that know all kinds of attacks, and all but one."""
    accuracy = results["systems"][system]["accuracy"]
    families = [family for family in FAMILIES if LEFT_OUT.format(family) in accuracy]
    rows = [None, *(cell for cell in results["cells"] if cell["system"] == system)]

    def found(defence: str, cell: Row | None) -> Row | None:
        rate: Row | None = accuracy[defence] if cell is None else dsr_of(cell, defence)
        return rate

    def without(family: str, cell: Row | None) -> str:
        rate = short(found(LEFT_OUT.format(family), cell))
        return f"**{rate}**" if cell and KINDS[cell["attack"]] == family else rate

    benign = f"none: benign clips, undefended {short(accuracy[NO_DEFENCE])}"
    columns: Columns = {
        "attack": lambda cell: attack_of(cell) if cell else benign,
        "at": lambda cell: LEVELS[cell["level"]] if cell else "",
        "ε": lambda cell: strength_of(cell) if cell else "",
        "its kind": lambda cell: KINDS[cell["attack"]] if cell else "",
        "fooled by": lambda cell: cell["successes"] if cell else "",
        "none left out": lambda cell: percent(found("guided", cell)),
        **each(families, without),
        "noise as strong": lambda cell: short(found(f"{MATCHED}guided", cell)),
    }
    return table(columns, rows)


def attack_of(cell: Mapping[str, Any]) -> str:
    """Title of an attack, with its steps where they are not the usual ones."""
    steps = cell["settings"].get("steps")
    return f"{cell['title']}-{steps}" if cell["attack"] == "pgd" else str(cell["title"])


def short(interval: Row | None) -> str:
    """Write a proportion in percent; without its interval, where a row has many."""
    return NOT_EVALUATED if interval is None else f"{100 * interval['value']:.0f}"


def trained_table(results: Row) -> str:
    """Write the robust accuracy of models trained with a defence."""
    columns: Columns = {
        "model": lambda row: row[0],
        "clean": lambda row: percent(results["systems"][row[0]]["accuracy"][NO_DEFENCE]),
        **robust_columns(results),
    }
    return table(columns, [(name, NO_DEFENCE) for name in results["systems"]])


def seeds_table(results: Row) -> str:
    """Success rates of purifiers that differ in the seed of their training alone."""
    cells = {
        name: [cell for cell in results["cells"] if cell["system"] == name]
        for name in results["systems"]
    }
    attacks = [f"{LEVELS[cell['level']]}, ε {strength_of(cell)}" for cell in [*cells.values()][-1]]
    systems = results["systems"]
    columns: Columns = {
        "system": str,
        **each(CLEAN, lambda defence, name: short(systems[name]["accuracy"][defence])),
        **each(dict(enumerate(attacks)), lambda i, name: percent(dsr_of(cells[name][i], "guided"))),
    }
    return table(columns, cells)


def seed_spread(results: Row, model: str) -> str:
    """Largest distance of waveform rates between purifiers that differ in the seed alone."""
    by_attack: dict[str, list[float]] = {}
    for cell in results["cells"]:
        rate = dsr_of(cell, "guided")
        if cell["system"].startswith(model) and cell["level"] == "raw" and rate is not None:
            by_attack.setdefault(strength_of(cell), []).append(100 * rate["value"])
    return f"{max(max(rates) - min(rates) for rates in by_attack.values()):.0f}"


def robust_columns(results: Row) -> Columns:
    """Worst case over strong attacks at every ε, as a share of all clips; and each attack alone.

    Rows are pairs of a system and a defence. Of the clips that the undefended model classifies
    correctly a sample is attacked: its interval, and its share of all clips.
    """
    worst = {
        (row["system"], row["defence"], row["eps"]): row
        for row in results["robust"]
        if row["level"] == "raw"
    }

    def robust(eps: float, row: tuple[str, str]) -> str:
        found = worst.get((*row, eps))
        if found is None or found["survive"] is None:
            missing = found is not None and missing_attacks(found["why"])
            return "not published" if missing else NOT_EVALUATED
        held = [bit == "1" for bit in found["survivors"]]
        holds = share_of(held, seed=results["seed"]).to_json()
        named = results["systems"][row[0]]["accuracy"][NO_DEFENCE]["value"]
        return percent({key: named * holds[key] for key in holds})

    def left(eps: float, row: tuple[str, str]) -> str:
        found = worst.get((*row, eps))
        if found is None or found["survive"] is None:
            why: str = "no attack at this ε" if found is None else found["why"]
            return missing_attacks(why) or why
        return "; ".join(
            f"{cell['title']}{', transferred' * (cell['protocol'] == 'transfer')} {left:.0f}"
            for cell in results["cells"]
            if (cell["system"], cell["eps"]) == (row[0], eps)
            and (left := left_by(cell, row[1])) is not None
        )

    columns: Columns = {}
    for place, eps in enumerate(sorted({key[2] for key in worst})):
        heading = "clips that each attack leaves, %" + " " * place
        columns = {
            **columns,
            **each({eps: f"robust, ε {eps:g}"}, robust),
            **each({eps: heading}, left),
        }
    return columns


def left_by(cell: Mapping[str, Any], defence: str) -> float | None:
    """Percent of the clips that an attack on a defence leaves; None if it is on another."""
    if cell["attacked_defence"] == defence:
        return 100 * (1 - float(cell["asr"]["value"]))
    if cell["protocol"] != "transfer":
        return None
    rights = [row["right"] for row in cell["defences"] if row["defence"] == defence]
    return 100 * rights[0].count("1") / len(rights[0]) if rights else None


def time_table(times: Row) -> str:
    """Seconds of a batch: the model alone, the purifier alone, and their ratio."""
    quartiles = "{ratio:.2f} [{ratio_quartiles[0]:.2f}, {ratio_quartiles[1]:.2f}]"
    columns: Columns = {
        "model": lambda row: row["model"],
        "its parameters": lambda row: f"{row['parameters']:,}",
        "forward pass, s": lambda row: f"{row['forward_s']:.2f}",
        "purification, s": lambda row: f"{row['purify_s']:.2f}",
        "ratio": lambda row: quartiles.format(**row),
    }
    return table(columns, times["rows"])


SNR_GOAL_DB, STOI_GOAL = 15.0, 0.97


def sound_verdict(results: Row) -> str:
    """Say which models' guided purifiers reach the aims on clean clips."""
    reached = [
        name
        for name, system in results["systems"].items()
        for row in [system["sound"]["guided"]]
        if row["snr_db"]["median"] >= SNR_GOAL_DB
        and row["stoi"] is not None
        and row["stoi"]["median"] >= STOI_GOAL
    ]
    missed = [name for name in results["systems"] if name not in reached]
    return f"reached by the guided purifier of {', '.join(reached) or 'no model'}" + (
        f" and missed by that of {', '.join(missed)}" if missed else ""
    )


def defence_time_table(times: Row) -> str:
    """Processor time of a clip: every defence beside the model's forward pass (Table V)."""
    models = list(dict.fromkeys(row["model"] for row in times["rows"]))
    found = {(row["model"], row["defence"]): row for row in times["rows"]}
    defences = sorted({row["defence"] for row in times["rows"]})

    def shown(model: str, defence: str) -> str:
        row = found[model, defence]
        return f"{1000 * row['defence_s']:.1f} ms, {row['ratio']:.2f} of a pass"

    heads = {
        name: f"{name}, a pass of {1000 * found[name, defences[0]]['forward_s']:.1f} ms"
        for name in models
    }
    return table({"defence": str, **each(heads, shown)}, defences)


PAGE = Page("nip", __file__, NAMES, parts)


if __name__ == "__main__":
    PAGE.run()
