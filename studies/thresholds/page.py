"""Write docs/results/thresholds.md: python -m studies.thresholds.page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studies._lib.numbers import number, percent
from studies._lib.pages import Page
from studies._lib.tables import Columns, table

Results = Mapping[str, Any]
Row = Mapping[str, Any]

QUANTITIES = {"threshold": "threshold", "frr": "FRR at it", "eer": "EER"}


def coverage(results: Results) -> str:
    """How often each interval holds the truth."""
    columns: Columns = {
        "speakers": lambda row: row["speakers"],
        "interval": lambda row: row["method"],
        "of": lambda row: QUANTITIES[row["quantity"]],
        "holds the truth": lambda row: percent(row["holds"]),
        "truth below it": lambda row: f"{100 * row['truth_below']:.1f}",
        "truth above it": lambda row: f"{100 * row['truth_above']:.1f}",
        "mean width": lambda row: f"{row['width']:.3f}",
    }
    rows = sorted(
        results["thresholds"]["coverage"],
        key=lambda row: (-row["speakers"], list(QUANTITIES).index(row["quantity"])),
    )
    return table(columns, rows)


def whole(results: Results) -> str:
    """What all trials say."""
    found = results["thresholds"]["whole"]
    prior = found["min_dcf"]["p_target"]
    rows = [
        ("threshold (cosine)", number(found["threshold"])),
        ("FAR, %", percent(found["far"])),
        ("FRR, %", percent(found["frr"])),
        ("EER, %", percent(found["eer"])),
        (f"minDCF, prior {prior:g}", number(found["min_dcf"])),
        ("Cllr of the logistic regression, bits", number(found["cllr"])),
        ("Cllr at best (isotonic)", f"{found['min_cllr']:.3f}"),
        ("Cllr on unseen speakers, logistic regression", f"{found['unseen_cllr']['logistic']:.3f}"),
        ("Cllr on unseen speakers, Venn–ABERS", f"{found['unseen_cllr']['venn_abers']:.3f}"),
    ]
    columns: Columns = {"measured": lambda row: row[0], "value": lambda row: row[1]}
    return table(columns, rows)


def parts(results: Results) -> dict[str, object]:
    """Fill the template."""
    found = results["thresholds"]
    return {
        "whole": whole(results),
        "coverage": coverage(results),
        "split": found["split_sha256"][:12],
        "model": found["model"],
    }


PAGE = Page(name="thresholds", module=__file__, results=("thresholds",), parts=parts)


if __name__ == "__main__":
    PAGE.run()
