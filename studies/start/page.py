"""Write docs/results/start.md: python -m studies.start.page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nip_audio.evaluation.tables import NOT_EVALUATED, markdown
from studies._lib.pages import Page


def starts(results: Mapping[str, Any]) -> str:
    """Time and memory of each command, before and now."""
    rows = [
        [f"`{row['command']}`", *_cells(row.get("before")), *_cells(row["now"])]
        for row in results["rows"]
    ]
    columns = ("s", "median s", "CPU s", "MB")
    heads = [f"{what}, {when}" for when in ("before", "now") for what in columns]
    return markdown(["command", *heads], rows)


def _cells(found: Mapping[str, float] | None) -> list[str]:
    if found is None:
        return [NOT_EVALUATED] * 4
    seconds = (found["wall_s"], found["median_wall_s"], found["cpu_s"])
    return [*(f"{value:.2f}" for value in seconds), f"{found['peak_mb']:.0f}"]


def set_ups(rows: list[dict[str, Any]]) -> str:
    """What each target took in a fresh clone."""
    cells = [
        [
            f"`{row['target']}`",
            ", ".join(f"`{earlier}`" for earlier in row["after"]) or "nothing",
            "exact" if row["locked"] else "newest",
            f"{row['torch']}, {row['torchaudio']}",
            str(row["exit_code"]),
            f"{row['seconds'] / 60:.1f}",
            f"{row['environment_gb']:.1f}",
            row["told"] or NOT_EVALUATED,
        ]
        for row in rows
    ]
    heads = ["target", "run after", "versions", "torch, torchaudio", "exit code", "minutes"]
    return markdown([*heads, "environment, GB", "what it ended with"], cells)


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
