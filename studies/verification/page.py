"""Write docs/results/verification.md: python -m studies.verification.page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from nip_audio.evaluation.config import PROTOCOLS
from studies._lib.numbers import NOT_EVALUATED, number, percent
from studies._lib.pages import Page
from studies._lib.tables import Columns, each, table

BACK_ENDS = {"cosine": "cosine", "plda": "PLDA"}
GOAL = 0.9


def attacks_of(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the cells that are no controls."""
    return [cell for cell in results["cells"] if not cell["contrary"]]


WHERE: Columns = {
    "back end": lambda row: where(row)[0],
    "attacked": lambda row: where(row)[1],
    "attack": lambda row: where(row)[2],
}


def clean_table(results: Mapping[str, Any]) -> str:
    """EER and minDCF of trials that nobody attacked, by what is purified."""
    rows = []
    for back_end in results["thresholds"]:
        for side, purified in (("test", "test"), ("enrolment", "test and enrolment")):
            ours = [
                c for c in attacks_of(results) if (c["back_end"], c["side"]) == (back_end, side)
            ]
            for row in max(ours, key=lambda c: c["targets"])["rows"] if ours else ():
                bare = row["defence"] == "no defence"
                if not bare or side == "test":  # without purification the trials are the same
                    rows.append((back_end, "nothing" if bare else purified, row))
    columns: Columns = {
        "back end": lambda row: BACK_ENDS[row[0]],
        "purified": lambda row: row[1],
        "defence": lambda row: row[2]["defence"],
        "EER, percent": lambda row: percent(row[2]["clean"]["eer"]),
        "minDCF": lambda row: number(row[2]["clean"]["min_dcf"], 2),
        "wrong, percent": lambda row: percent(row[2]["clean"]["wrong"]),
    }
    return table(columns, rows)


def attack_table(results: Mapping[str, Any]) -> str:
    """What the attacks are and cost, and what they turn."""
    columns: Columns = {
        **WHERE,
        "trials": lambda cell: f"{cell['targets']} + {cell['impostors']}",
        "turned": lambda cell: f"{cell['turned']} of {cell['right_before']}",
        "L∞": lambda cell: f"{cell['median_linf'] * 32768:.0f}",
        "L2": lambda cell: f"{cell['median_l2'] * 32768:.0f}",
        "SNR dB": lambda cell: f"{cell['median_snr_db']:.1f}",
        "queries": lambda cell: f"{cell['queries']:.0f}",
        "gradients": lambda cell: f"{cell['gradients']:.0f}",
        "s": lambda cell: f"{cell['seconds']:.1f}",
    }
    return table(columns, attacks_of(results))


def behind(cell: Mapping[str, Any], defence: str) -> Mapping[str, Any]:
    """What a defence makes of a cell."""
    return next(row for row in cell["rows"] if row["defence"] == defence)


def recovery_table(
    results: Mapping[str, Any], quantity: str, cells: Sequence[Mapping[str, Any]]
) -> str:
    """EER or minDCF: clean, attacked, and attacked behind each defence."""
    form = percent if quantity == "eer" else partial(number, digits=2)
    shown = {"no defence": "attacked, no defence"} | {n: n for n in defences_of(results)}
    columns: Columns = {
        **WHERE,
        "clean": lambda cell: form(behind(cell, "no defence")["clean"][quantity]),
        **each(shown, lambda name, cell: form(behind(cell, name)["attacked"][quantity])),
    }
    return table(columns, cells)


def share_table(results: Mapping[str, Any], quantity: str) -> str:
    """Share of the EER, bold from the goal on, or of the scores, that each defence gives back."""
    form = reached if quantity == "recovered" else part

    def shown(name: str, cell: Mapping[str, Any]) -> str:
        return form(behind(cell, name)[quantity]) if "rows" in cell else NOT_EVALUATED

    missing = [cell for cell in results["unfinished"] if not cell["contrary"]]
    columns = {**WHERE, **each(defences_of(results), shown)}
    return table(columns, [*attacks_of(results), *missing])


def defences_of(results: Mapping[str, Any]) -> list[str]:
    """Names of the defences, without none."""
    return [name for name in results["defences"] if name != "no defence"]


def defence_lines(results: Mapping[str, Any]) -> str:
    """What each fitted defence has seen."""
    lines = [
        f"`{name}` was fitted to {known['seen']} recordings, "
        f"{known['seen_of_the_speakers'] or 'none'} of them of the speakers verified here, whose "
        "`train` role it may have seen."
        for name, known in results["defences"].items()
        if known and known["seen"] and "of" not in known
    ]
    return " ".join(lines)


def where(cell: Mapping[str, Any]) -> list[str]:
    """Back end, side and attack of a cell."""
    settings = {k: v for k, v in cell["settings"].items() if k in ("steps", "samples")}
    levels = 32768 * cell["eps"]  # of 16 bits
    strength = f"{levels:.0f}/32768" if levels.is_integer() else f"{cell['eps']:g}"
    shown = ", ".join([f"ε {strength}", *(f"{k} {v}" for k, v in settings.items())])
    return [BACK_ENDS[cell["back_end"]], cell["side"], f"{cell['title']} ({shown})"]


def part(interval: Mapping[str, float] | None) -> str:
    """A share of what was lost."""
    return "nothing was lost" if interval is None else percent(interval)


def reached(interval: Mapping[str, float] | None) -> str:
    """A share, in bold where it reaches the goal."""
    hit = interval is not None and interval["value"] >= GOAL
    return f"**{part(interval)}**" if hit else part(interval)


def hits(results: Mapping[str, Any], name: str) -> str:
    """Return in how many of the attacks a defence reaches the goal."""
    found = [
        row["recovered"]["value"]
        for cell in attacks_of(results)
        for row in cell["rows"]
        if row["defence"] == name and row["recovered"]
    ]
    return f"{sum(value >= GOAL for value in found)} of {len(found)}"


def verdict(results: Mapping[str, Any], name: str) -> str:
    """In how many cells a defence reaches the goal, and its least share."""
    found = [
        (row["recovered"], cell)
        for cell in attacks_of(results)
        for row in cell["rows"]
        if row["defence"] == name and row["recovered"]
    ]
    if not found:
        return f"{name}: not evaluated."
    hits = sum(interval["value"] >= GOAL for interval, _ in found)
    above = sum(interval["value"] > 1 for interval, _ in found)
    least, cell = min(found, key=lambda pair: pair[0]["value"])
    return (
        f"{name} reaches {100 * GOAL:.0f} % in {hits} of the {len(found)} attacks that cost "
        f"something, and is above 100 % in {above}; its least share is "
        f"{percent(least)} percent ({', '.join(where(cell))})."
    )


def parts(found: Mapping[str, Any]) -> dict[str, object]:
    """Fill the template."""
    results = found["verification"]
    planned = sum(not c["contrary"] for c in results["cells"] + results["unfinished"])
    versions = ", ".join(f"{name} {v}" for name, v in results["versions"].items())
    return {
        **{k: results[k] for k in ("seed", "model", "subset", "speakers", "targets")},
        **{k: results[k] for k in ("impostors", "targets_of_one_chapter", "p_target")},
        "crop": f"{results['crop_s']:g}",
        "model_id": results["model_id"][:12],
        "split": results["split_sha256"][:12],
        "threat": f"`{results['protocol']}`: {PROTOCOLS[results['protocol']]}",
        "thresholds": ", ".join(
            f"{BACK_ENDS[name]} {value:.3f}" for name, value in results["thresholds"].items()
        ),
        "versions": versions,
        "cells": f"{len(attacks_of(results))} of {planned}",
        "point": f"{100 / results['targets']:.1f}",
        "hits": hits(results, "guided"),
        "noise_hits": hits(results, "noise as strong as guided"),
        "seen": defence_lines(results),
        "verdicts": "\n".join(f"- {verdict(results, name)}" for name in defences_of(results)),
        "clean": clean_table(results),
        "attacks": attack_table(results),
        "shares": share_table(results, "recovered"),
        "returned": share_table(results, "returned"),
        "contrary": recovery_table(results, "eer", [c for c in results["cells"] if c["contrary"]]),
        "eer": recovery_table(results, "eer", attacks_of(results)),
        "min_dcf": recovery_table(results, "min_dcf", attacks_of(results)),
    }


PAGE = Page("verification", __file__, ("verification",), parts)


if __name__ == "__main__":
    PAGE.run()
