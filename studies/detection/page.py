"""Write docs/results/detection.md: python -m studies.detection.page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from studies._lib.numbers import NOT_EVALUATED, percent
from studies._lib.pages import Page
from studies._lib.tables import Columns, each, table

Results = Mapping[str, Any]
Row = Mapping[str, Any]

TITLES = {
    "xvector-libri251": "x-vector",
    "resnet34-libri30": "ResNet-34",
    "deep-speaker-libri30": "Deep Speaker",
    "audionet-libri251": "AudioNet",
    "resemblyzer": "GE2E",
    "ecapa-libri251": "ECAPA-TDNN",
}
GOALS = {
    "reject": "away from the own",
    "misidentify": "away from the own",
    "accept": "towards another",
    "targeted": "towards another",
}


def _models(results: Results) -> dict[str, Row]:
    found = results["detected"]
    return {title: found[name] for name, title in TITLES.items() if name in found}


def _attacks(model: Row, *, which: str = "attacks") -> dict[str, Row]:
    """Return the cells of a model by attack and goal in words."""
    place = model if which == "attacks" else model["clean_only"]
    found = {}
    for name, cell in place["attacks"].items():
        attack, _, goal = name.rpartition(", ")
        found[f"{attack}, {GOALS[goal]}"] = cell
    return found


def systems(results: Results) -> str:
    """What was calibrated."""
    columns: Columns = {
        "model": lambda row: row[0],
        "architecture": lambda row: row[1]["architecture"],
        "attacked as": lambda row: "classifier" if "targeted" in row[1]["goals"] else "verifier",
        "calibrated on": lambda row: f"{row[1]['files']} recordings",
        "windows, at most": lambda row: f"{row[1]['window_s']:g} s",
        "test clips": lambda row: row[1]["clips"],
        "speakers": lambda row: row[1]["speakers"],
    }
    return table(columns, _models(results).items())


def _cell(show: str, model: Row, attack: str) -> str:
    cell = _attacks(model).get(attack)
    if cell is None or "flagged" not in cell:
        return NOT_EVALUATED if cell is None else f"{cell['succeed']} succeed"
    if show == "flagged":
        return f"{percent(cell['flagged']['0.01'])} of {cell['judged']}"
    return " / ".join(
        f"{100 * cell[name]:.1f}" for name in ("auroc", "auroc_harmless", "auroc_noise")
    )


def _attack_names(results: Results) -> list[str]:
    models = _models(results).values()
    return list(dict.fromkeys(name for model in models for name in _attacks(model)))


def _over_attacks(results: Results, show: str) -> str:
    models = _models(results)
    columns: Columns = {
        "attack, attacker wants": lambda row: row,
        **each(list(models), lambda title, row: _cell(show, models[title], row)),
    }
    return table(columns, _attack_names(results))


def _over_models(results: Results, heading: str, key: str, show: Callable[[Row], str]) -> str:
    """Write a table with a row for each condition and a column for each model."""
    models = _models(results)

    def cell(title: str, name: str) -> str:
        return show(models[title][key][name])

    first = next(iter(models.values()))
    columns: Columns = {heading: lambda row: row, **each(list(models), cell)}
    return table(columns, first[key])


def _not_judged(found: Row) -> str:
    return f", {found['outside']} not judged" if found["outside"] else ""


def _flagged(found: Row) -> str:
    return f"{percent(found['0.01'])}{_not_judged(found)}"


def harmless(results: Results) -> str:
    """What is flagged of harmless clips."""
    return _over_models(results, "condition", "harmless", _flagged)


def before(results: Results) -> str:
    """The clean-only detector beside the new one, on the x-vector."""
    model = _models(results)["x-vector"]
    former = model["clean_only"]

    def now(row: str) -> str:
        return percent(model["harmless"][row]["0.01"])

    def then(row: str) -> str:
        return _flagged(former["harmless"][row])

    harmless_rows = [(f"harmless: {name}", then(name), now(name)) for name in former["harmless"]]
    old, new = _attacks(model, which="clean_only"), _attacks(model)
    attack_rows = [
        (f"attack: {name}", *(percent(one[name]["flagged"]["0.01"]) for one in (old, new)))
        for name in old
        if "flagged" in old[name]
    ]
    columns: Columns = {
        "clips": lambda row: row[0],
        "clean-only NCCR": lambda row: row[1],
        "with attacks": lambda row: row[2],
    }
    return table(columns, [*attack_rows, *harmless_rows])


def evasions(results: Results) -> str:
    """What still succeeds and is called clean."""

    def both(found: Row) -> str:
        still = f"{found['still']} of {found['clips']} succeed{_not_judged(found)}"
        return f"{percent(found['both'])} ({still})"

    return _over_models(results, "done to the attacked file", "evasions", both)


def adaptive(results: Results) -> str:
    """What an attacker who knows everything but the noise reaches."""
    found = results["detected_adaptive"]
    rows = [
        (title, name, cell)
        for key, title in TITLES.items()
        if key in found
        for name, cell in found[key]["adaptive"]["cells"].items()
    ]
    columns: Columns = {
        "model": lambda row: row[0],
        "attacker wants": lambda row: row[1],
        "reach their goal": lambda row: f"{row[2]['succeed']} of {row[2]['clips']}",
        "and are not flagged at 1 %": lambda row: percent(row[2]["unnoticed"]),
    }
    return table(columns, rows)


def parts(results: Results) -> dict[str, object]:
    """Fill the template."""
    first = next(iter(_models(results).values()))
    return {
        "systems": systems(results),
        "found": _over_attacks(results, "flagged"),
        "areas": _over_attacks(results, "areas"),
        "harmless": harmless(results),
        "before": before(results),
        "evasions": evasions(results),
        "adaptive": adaptive(results),
        "split": first["split_sha256"][:12],
    }


PAGE = Page(
    name="detection", module=__file__, results=("detected", "detected_adaptive"), parts=parts
)


if __name__ == "__main__":
    PAGE.run()
