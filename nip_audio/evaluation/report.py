"""Write the report of a run: tables, a CSV file and a plot, beside its results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nip_audio.core.state import write_atomic
from nip_audio.evaluation.plots import plot_success
from nip_audio.evaluation.sound import sound_table
from nip_audio.evaluation.tables import (
    NOT_PUBLISHED,
    accuracy_table,
    attack_tables,
    check_table,
    control_table,
    detector_table,
    header,
    missing_attacks,
    notes,
    robust_table,
    to_csv,
)

__all__ = ["write_report"]


def write_report(results: Mapping[str, Any], out: Path) -> list[Path]:
    """Write tables.md, cells.csv and success.png/.svg, replacing those of an earlier run.

    Returns:
        The files written.
    """
    parts = [f"# {results['title']}\n", header(results), notes(results), accuracy_table(results)]
    for system in results["systems"]:
        parts += [f"## {system}\n", attack_tables(results, system)]
        for heading, table in (
            ("Purified sound", sound_table(results, system)),
            ("Detection", detector_table(results, system)),
            ("Harmless changes", control_table(results, system)),
        ):
            parts += [f"### {heading}\n", table] if table else []
    parts += ["## Robust accuracy\n", robust_table(results)]
    parts += [NOT_PUBLISHED] if any(missing_attacks(r["why"]) for r in results["robust"]) else []
    parts += ["## Are the attacks sound?\n", check_table(results)]
    tables, cells = out / "tables.md", out / "cells.csv"
    write_atomic(tables, "\n".join(parts).encode(), force=True)
    write_atomic(cells, to_csv(results).encode(), force=True)
    return [tables, cells, *plot_success(results, out / "success")]
