"""Write docs/results/gate.md: python -m studies.gate.page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studies._lib.numbers import percent
from studies._lib.pages import Page
from studies._lib.tables import Columns, table

Results = Mapping[str, Any]

_GOAL, _MOST = 0.95, 0.01


def faults(found: Results) -> str:
    """Write how many clips with each fault are found."""
    columns: Columns = {
        "fault": lambda row: row["fault"],
        "limit": lambda row: f"`{row['limit']}`" if row["limit"] != "silent" else "error `silent`",
        "clips": lambda row: row["clips"],
        "found by it, %": lambda row: percent(row["found"]),
        "found by any, %": lambda row: percent(row["any"]),
    }
    return table(columns, found["faults"]).strip()


def mistaken(found: Results) -> str:
    """Write how many clean clips miss each limit."""
    columns: Columns = {
        "limit": lambda row: "any" if row["limit"] == "any" else f"`{row['limit']}`",
        "clean clips": lambda row: row["clips"],
        "mistaken, %": lambda row: percent(row["share"]),
    }
    rows = [row for row in found["mistaken"] if row["limit"] != "silent"]
    every = {"limit": "any", "clips": found["good"], "share": found["mistaken_any"]}
    return table(columns, [*rows, every]).strip()


def missed(found: Results) -> str:
    """Say which faults and limits miss the goal."""
    low = [row["fault"] for row in found["faults"] if row["found"]["value"] < _GOAL]
    high = [f"`{row['limit']}`" for row in found["mistaken"] if row["share"]["value"] > _MOST]
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
    return {
        "faults": faults(found),
        "mistaken": mistaken(found),
        "missed": missed(found),
        "met": len(met),
        "kinds": len(found["faults"]),
        "finder": found["finder"],
        "model": found["model"],
        "each": found["faults"][0]["clips"],
    }


PAGE = Page("gate", __file__, ("gate",), parts)

if __name__ == "__main__":
    PAGE.run()
