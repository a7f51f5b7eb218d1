"""Write docs/results/gate.md: python -m studies.gate.page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studies._lib.numbers import percent, signed
from studies._lib.pages import Page
from studies._lib.tables import Columns, table

Results = Mapping[str, Any]

_GOAL, _MOST = 0.95, 0.01
_ANY = "any limit of the gate"


def _found_by(name: str) -> str:
    words = {"silent": "error `silent`", "adversarial": "finding `adversarial`", _ANY: _ANY}
    return words.get(name, f"`{name}`")


def faults(found: Results) -> str:
    """Write how many clips with each fault are found."""
    columns: Columns = {
        "fault": lambda row: row["fault"],
        "limit": lambda row: _found_by(row["limit"]),
        "clips": lambda row: row["clips"],
        "found by it, %": lambda row: percent(row["found"]),
        "found by any, %": lambda row: percent(row["any"]),
    }
    return table(columns, found["faults"]).strip()


def mistaken(found: Results) -> str:
    """Write how many clean clips miss each limit."""
    columns: Columns = {
        "limit": lambda row: _found_by(row["limit"]),
        "clean clips": lambda row: row["clips"],
        "mistaken, %": lambda row: percent(row["share"]),
    }
    return table(columns, found["mistaken"]).strip()


def second_voice(found: Results) -> str:
    """Write how often a second voice is found, by its length and by the sexes."""
    columns: Columns = {
        "second voice, s": lambda row: f"{row['seconds']:g}",
        "clips": lambda row: row["clips"],
        "found, %": lambda row: percent(row["found"]),
        "same sex": lambda row: (
            f"{percent(row['same_sex']['found'])} of {row['same_sex']['clips']}"
        ),
        "other sex": lambda row: (
            f"{percent(row['other_sex']['found'])} of {row['other_sex']['clips']}"
        ),
    }
    return table(columns, found["voices"]["by_seconds"]).strip()


def folders(found: Results) -> str:
    """Write how often a clip is inconsistent with five others."""
    columns: Columns = {
        "a clip in": lambda row: row["case"],
        "clips": lambda row: row["clips"],
        "speakers": lambda row: row["speakers"],
        "inconsistent, %": lambda row: percent(row["inconsistent"]),
        "speakers concerned": lambda row: row["flagged_speakers"],
    }
    return table(columns, found["folders"]).strip()


def same_voice(found: Results) -> str:
    """Write how often two names of one voice, and two voices, get a high probability."""
    columns: Columns = {
        "probability above": lambda row: f"{row['above']:g}",
        "one voice, found, %": lambda row: percent(row["recall"]),
        "two voices, mistaken, % of pairs": lambda row: percent(row["mistaken"]),
    }
    return table(columns, found["same_voice"]["rows"]).strip()


def training(found: Results) -> str:
    """Write the accuracy after training with wrong labels."""
    columns: Columns = {
        "wrong labels": lambda row: f"{100 * row['share']:.0f} % ({row['wrong']:.0f})",
        "wrong ones found, %": lambda row: (
            "none to find" if row["found"] is None else f"{100 * row['found']:.1f}"
        ),
        "right ones lost, %": lambda row: f"{100 * row['lost']:.1f}",
        "accuracy, %": lambda row: percent(row["plain"]),
        "screened before, %": lambda row: percent(row["gated"]),
        "gain, points": lambda row: signed(row["gain"], factor=100),
    }
    return table(columns, found["rows"]).strip()


def helped(found: Results) -> str:
    """Say where screening makes a difference that the interval shows."""
    names: dict[bool, list[str]] = {True: [], False: []}
    for row in found["rows"]:
        names[row["gain"]["low"] > 0].append(f"{100 * row['share']:.0f} %")
    shown, open_ = (" and ".join(names[one]) for one in (True, False))
    said = [f"accuracy rises with {shown} wrong labels"] if shown else []
    said += [f"with {open_} no difference is shown"] if open_ else []
    return "; ".join(said)


def missed(found: Results) -> str:
    """Say which faults and limits miss the goal."""
    low = [row["fault"] for row in found["faults"] if row["found"]["value"] < _GOAL]
    high = [
        _found_by(row["limit"])
        for row in found["mistaken"]
        if row["share"]["value"] > _MOST and row["limit"] != _ANY
    ]
    parts = []
    if low:
        parts.append(f"recall is below the goal for: {'; '.join(low)}")
    if high:
        parts.append(f"false alarms are above it for {', '.join(high)}")
    return f"{', and '.join(parts) or 'every fault and limit meets it'}."


def parts(results: Results) -> dict[str, object]:
    """Fill the template."""
    found = results["gate"]
    met = [row for row in found["faults"] if row["found"]["value"] >= _GOAL]
    (any_limit,) = (row for row in found["mistaken"] if row["limit"] == _ANY)
    attacked = found["faults"][-1]
    return {
        "faults": faults(found),
        "mistaken": mistaken(found),
        "mistaken_any": percent(any_limit["share"]),
        "missed": missed(found),
        "second_voice": second_voice(found),
        "folders": folders(found),
        "same_voice": same_voice(found),
        "training": training(results["gate_training"]),
        "helped": helped(results["gate_training"]),
        "scatter": f"{100 * max(_scatter(results['gate_training'])):.0f}",
        "met": len(met),
        "kinds": len(found["faults"]),
        "finder": found["finder"],
        "model": found["model"],
        "each": found["faults"][0]["clips"],
        "attacked": attacked["clips"],
        "two_same": percent(found["voices"]["same_sex"]["found"]),
        "two_other": percent(found["voices"]["other_sex"]["found"]),
        "cllr": _plain(found["same_voice"]["cllr"]),
        "brier": _plain(found["same_voice"]["brier"]),
    }


def _scatter(found: Results) -> list[float]:
    """Return by how much the accuracies of the seeds differ, in each condition."""
    return [
        max(values) - min(values)
        for row in found["rows"]
        for kind in ("plain", "gated")
        for values in [[one[kind] for one in row["by_seed"]]]
    ]


def _plain(interval: Mapping[str, float]) -> str:
    return f"{interval['value']:.2f} [{interval['low']:.2f}, {interval['high']:.2f}]"


PAGE = Page("gate", __file__, ("gate", "gate_training"), parts)

if __name__ == "__main__":
    PAGE.run()
