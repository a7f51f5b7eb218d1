"""Write docs/nip.md from what the evaluations and a benchmark left in docs/results.

python write_nip_page.py ../../docs/results ../../docs/nip.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from write_page import of_all

from nip_audio.evaluation.tables import (
    accuracy_table,
    attack_tables,
    defence_table,
    dsr_table,
    header,
    markdown,
)

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Fill the template."""
    folder = Path(sys.argv[1])
    first, others, adaptive, times = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("nip", "nip_models", "nip_adaptive", "purifier_time")
    )
    done = len(first["cells"]) + len(others["cells"])
    missing = len(first["unfinished"]) + len(others["unfinished"])
    page = (
        (HERE / "nip_template.md")
        .read_text(encoding="utf-8")
        .format(
            header=header(first),
            cells=f"{done} of {done + missing}",
            defences="\n".join(of_all(results, defence_table) for results in (first, others)),
            guided="\n".join(
                of_all(results, lambda r, s: dsr_table(r, s, "guided"))
                for results in (first, others)
            ),
            accuracy=accuracy_table(adaptive),
            adaptive=of_all(adaptive, attack_tables),
            times=time_table(times),
        )
    )
    Path(sys.argv[2]).write_text(page, encoding="utf-8")


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


if __name__ == "__main__":
    main()
