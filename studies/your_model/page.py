"""Write docs/results/your_model.md: python -m studies.your_model.page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studies._lib.numbers import percent
from studies._lib.pages import Page
from studies._lib.tables import Columns, each, table

Results = Mapping[str, Any]
Row = Mapping[str, Any]

MODELS = {"your_model_ge2e": "Resemblyzer (GE2E)", "your_model_ecapa": "ECAPA-TDNN"}
TIMES = "your_model_times"
RATES = {"0.01": "flagged at 1 %", "0.05": "at 5 %"}
NOT_MEASURED = "—"


def _models(results: Results) -> list[Row]:
    return [{"title": title, **results[name]} for name, title in MODELS.items()]


def systems(results: Results) -> str:
    """What was adopted, and what was chosen for it."""
    columns: Columns = {
        "model": lambda row: row["title"],
        "architecture": lambda row: row["architecture"],
        "layers measured": lambda row: ", ".join(f"`{name}`" for name in row["layers"]),
        "noises, rms": lambda row: ", ".join(f"{level:g}" for level in row["noises"]),
        "EER of the test clips, %": lambda row: (
            f"{100 * row['purification']['guided NIP']['eer']['without']:.1f}"
        ),
        "threshold": lambda row: f"{row['threshold']:.3f}",
    }
    return table(columns, _models(results))


def times(results: Results) -> str:
    """Time of each command."""
    found = results[TIMES]

    def minutes(name: str, row: Row) -> str:
        return f"{found[row['key']][name]['processor_seconds'] / 60:.1f}"

    def together(row: Row) -> str:
        parts = [part for part in found[row["key"]].values() if isinstance(part, dict)]
        return f"{sum(part['processor_seconds'] for part in parts) / 60:.1f}"

    rows = [{"key": key} for key in sorted(found)]
    columns: Columns = {
        "model": lambda row: row["key"],
        **each(("adopt", "calibrate", "fit-purifier"), minutes),
        "together, minutes": together,
    }
    return table(columns, rows)


def attacks(results: Results) -> str:
    """What the detector finds of the examples that succeed."""

    def flagged(rate: str, row: Row) -> str:
        return percent(row["flagged"][rate]) if "flagged" in row else NOT_MEASURED

    def area(name: str, row: Row) -> str:
        return percent(row[name]) if name in row else NOT_MEASURED

    rows = [
        {"title": model["title"], "attack": name, **cell}
        for model in _models(results)
        for name, cell in model["detection"]["attacks"].items()
    ]
    columns: Columns = {
        "model": lambda row: row["title"],
        "attacker wants, attack": lambda row: row["attack"],
        "succeed": lambda row: f"{row['succeed']} of {row['attacked']}",
        "AUROC against clean": lambda row: area("auroc", row),
        "against noise ±.002": lambda row: area("auroc_uniform", row),
        **each(RATES, flagged),
    }
    return table(columns, rows)


def benign(results: Results) -> str:
    """What the detector flags of harmless clips."""
    models = _models(results)
    names = list(models[0]["detection"]["benign"])

    def flagged(key: tuple[int, str], row: str) -> str:
        return percent(models[key[0]]["detection"]["benign"][row][key[1]])

    keys = {
        (place, rate): f"{model['title']}, {heading}"
        for place, model in enumerate(models)
        for rate, heading in RATES.items()
    }
    columns: Columns = {"condition": lambda row: row, **each(keys, flagged)}
    return table(columns, names)


def purification(results: Results) -> str:
    """What purifiers restore of the examples that succeed without them."""
    rows = [
        {"title": model["title"], "purifier": name, **found}
        for model in _models(results)
        for name, found in model["purification"].items()
    ]
    attacks_made = list(dict.fromkeys(name for row in rows for name in row["restored"]))

    def restored(name: str, row: Row) -> str:
        return percent(row["restored"][name]) if name in row["restored"] else NOT_MEASURED

    columns: Columns = {
        "model": lambda row: row["title"],
        "purifier": lambda row: row["purifier"],
        "clean, accepted": lambda row: percent(row["clean"]["reject"]),
        "clean, rejected": lambda row: percent(row["clean"]["accept"]),
        **each(attacks_made, restored),
    }
    return table(columns, rows)


def adaptive(results: Results) -> str:
    """What an attacker who knows the purifier reaches."""

    def success(goal: str, row: Row) -> str:
        return f"{percent(row['adaptive'][goal]['success'])} of {row['adaptive'][goal]['clips']}"

    rows = [
        {"title": model["title"], "purifier": name, **found}
        for model in _models(results)
        for name, found in model["purification"].items()
    ]
    columns: Columns = {
        "model": lambda row: row["title"],
        "purifier": lambda row: row["purifier"],
        **each({"reject": "own voice rejected", "accept": "accepted as another"}, success),
        "EER of clean clips behind it, %": lambda row: f"{100 * row['eer']['behind it']:.1f}",
    }
    return table(columns, rows)


def parts(results: Results) -> dict[str, object]:
    """Fill the template."""
    first = results["your_model_ge2e"]
    return {
        "systems": systems(results),
        "times": times(results),
        "attacks": attacks(results),
        "benign": benign(results),
        "purification": purification(results),
        "adaptive": adaptive(results),
        "split": first["split_sha256"][:12],
    }


PAGE = Page(name="your_model", module=__file__, results=(*MODELS, TIMES), parts=parts)


if __name__ == "__main__":
    PAGE.run()
