"""Write docs/results/start.md: python -m studies.start.page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studies._lib.numbers import NOT_EVALUATED
from studies._lib.pages import Page
from studies._lib.tables import Columns, each, table

TAKEN = {"wall_s": "s", "median_wall_s": "median s", "cpu_s": "CPU s", "peak_mb": "MB"}


def starts(results: Mapping[str, Any]) -> str:
    """Time and memory of each command, before and now."""

    def shown(key: tuple[str, str], row: Mapping[str, Any]) -> str:
        when, what = key
        found = row.get(when)
        digits = 0 if what == "peak_mb" else 2
        return NOT_EVALUATED if found is None else f"{found[what]:.{digits}f}"

    headings = {(t, key): f"{of}, {t}" for t in ("before", "now") for key, of in TAKEN.items()}
    columns: Columns = {"command": lambda row: f"`{row['command']}`", **each(headings, shown)}
    return table(columns, results["rows"])


def set_ups(rows: list[dict[str, Any]]) -> str:
    """What each target took in a fresh clone."""
    columns: Columns = {
        "target": lambda row: f"`{row['target']}`",
        "run after": lambda row: ", ".join(f"`{one}`" for one in row["after"]) or "nothing",
        "versions": lambda row: "exact" if row["locked"] else "newest",
        "torch, torchaudio": lambda row: f"{row['torch']}, {row['torchaudio']}",
        "exit code": lambda row: row["exit_code"],
        "minutes": lambda row: f"{row['seconds'] / 60:.1f}",
        "environment, GB": lambda row: f"{row['environment_gb']:.1f}",
        "what it ended with": lambda row: row["told"] or NOT_EVALUATED,
    }
    return table(columns, rows)


def _first(rows: list[dict[str, Any]], target: str) -> dict[str, Any]:
    return next(row for row in rows if row["target"] == target)


def parts(results: Mapping[str, Any]) -> dict[str, object]:
    """Fill the template."""
    start, rows = results["start"], results["set_up"]
    by_command = {row["command"]: row for row in start["rows"]}
    shown, bound = by_command["nip-audio --help"], start["bound"]
    return {
        "starts": starts(start),
        "set_ups": set_ups(rows),
        "help_before": f"{shown['before']['wall_s']:.1f}",
        "help_now": f"{shown['now']['wall_s']:.2f}",
        "help_mb": f"{shown['now']['peak_mb']:.0f}",
        "demo_minutes": f"{_first(rows, 'make demo')['seconds'] / 60:.1f}",
        "rounds": str(start["rounds"]),
        "cores": str(start["cores"]),
        "machine": start["machine"],
        "python": start["python"],
        "bound_s": f"{bound['wall_s']:.1f}",
        "ratio": f"{bound['screen_wall_ratio']:.2f}",
        "cpu_ratio": f"{bound['screen_cpu_ratio']:.2f}",
        "allowed": f"{bound['allowed']:g}",
    }


PAGE = Page("start", __file__, ("start", "set_up"), parts)


if __name__ == "__main__":
    PAGE.run()
