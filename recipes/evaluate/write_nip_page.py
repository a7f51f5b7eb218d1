"""Write docs/nip.md from what the evaluations and a benchmark left in docs/results.

python write_nip_page.py ../../docs/results ../../docs/nip.md
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from write_page import of_all

from nip_audio.evaluation.defences import NO_DEFENCE
from nip_audio.evaluation.tables import (
    accuracy_table,
    attack_tables,
    defence_table,
    dsr_table,
    header,
    markdown,
)
from nip_audio.purifiers.noise import MATCHED

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
            summary=summary_table(first, others),
            known=known_table(adaptive),
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


def summary_table(*evaluations: Mapping[str, Any]) -> str:
    """Accuracy without an attacker, and mean success rates over the attacks of one strength."""
    kinds = {
        "waveform, ε 0.0005": ("raw", 0.0005),
        "waveform, ε 0.002": ("raw", 0.002),
        "spectrogram, ε 4/255": ("input", 4 / 255),
        "spectrogram, ε 8/255": ("input", 8 / 255),
    }
    rows = []
    for results in evaluations:
        for name, system in results["systems"].items():
            before, after = (
                f"{100 * system['accuracy'][d]['value']:.1f}" for d in (NO_DEFENCE, "guided")
            )
            means = [_mean_rate(results, name, *kind) for kind in kinds.values()]
            rows.append([name, before, after, *means])
    return markdown(["system", "clean, undefended", "clean, guided", *kinds], rows)


def _mean_rate(results: Mapping[str, Any], system: str, level: str, eps: float) -> str:
    rates = [
        row["dsr"]["value"]
        for cell in results["cells"]
        if (cell["system"], cell["level"]) == (system, level)
        and cell["eps"] is not None
        and math.isclose(cell["eps"], eps)
        for row in cell["defences"]
        if row["defence"] == "guided" and row["dsr"] is not None
    ]
    return f"{100 * sum(rates) / len(rates):.1f}, worst {100 * min(rates):.1f}"


def known_table(adaptive: Mapping[str, Any]) -> str:
    """How many examples of each strength succeed against each defence that the attacker knows."""
    strengths = sorted({cell["eps"] for cell in adaptive["cells"]})
    found: dict[str, dict[float, str]] = {}
    for cell in adaptive["cells"]:
        if not cell["attacked_defence"].startswith(MATCHED):
            count = f"{cell['successes']} of {cell['attacked']}"
            found.setdefault(cell["attacked_defence"], {})[cell["eps"]] = count
    rows = [[name, *(counts[eps] for eps in strengths)] for name, counts in found.items()]
    return markdown(["defence", *(f"ε {eps:g}" for eps in strengths)], rows)


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
