"""Write docs/results/hardening.md: python -m studies.hardening.page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studies._lib.pages import Page
from studies._lib.tables import Columns, table
from studies.hardening.cases import CASES, Case

Results = Mapping[str, Any]
Found = Mapping[str, Any]

LABELS = ("before", "after")


def _shown(found: Found) -> str:
    said = ", ".join(dict.fromkeys(found["verdicts"])) or "no record"
    one = len(found["verdicts"]) == 1 and found["heard_s"] > 0
    heard = f", {found['heard_s']:.1f} s heard" if one else ""
    mark = "" if found["right"] else "**wrong:** "
    return f"{mark}{said}{heard} (exit {found['exit_code']})"


def cases(results: Results) -> str:
    """What is said of each case by both versions."""
    found = results["hardening"]["cases"]

    def column(label: str) -> Any:
        return lambda case: _shown(found[case.title][label])

    columns: Columns = {
        "fault": lambda case: case.title,
        "right is": lambda case: case.right,
        **{label: column(label) for label in LABELS},
    }
    return table(columns, CASES)


def counts(results: Results) -> str:
    """How many cases each version gets right."""
    found = results["hardening"]["cases"]

    def right(label: str, case: Case) -> bool:
        return bool(found[case.title][label]["right"])

    columns: Columns = {
        "version": lambda label: label,
        "cases": lambda label: len(CASES),
        "right": lambda label: sum(right(label, case) for case in CASES),
    }
    return table(columns, LABELS)


def kinds(results: Results) -> str:
    """What was wrong, what is so now, and which tests hold it."""
    columns: Columns = {
        "kind": lambda row: row["kind"],
        "before": lambda row: row["before"],
        "after": lambda row: row["after"],
        "tests": lambda row: ", ".join(f"`{name}`" for name in row["tests"]),
    }
    return table(columns, results["hardening_kinds"])


PAGE = Page(
    name="hardening",
    module=__file__,
    results=("hardening", "hardening_kinds"),
    parts=lambda results: {
        "cases": cases(results),
        "counts": counts(results),
        "kinds": kinds(results),
    },
)

if __name__ == "__main__":
    PAGE.run()
