"""Set the headline figures of shipped models beside those of the weights that they replaced.

    python -m studies.models.replaced BEFORE --results studies/results/replaced.json

BEFORE is a folder with the results of the earlier weights, as studies/results was when they were
shipped; today's are read from studies/results. What was not measured on both is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies._lib.command import command, run, tell, write_results
from studies._lib.pages import RESULTS_FOLDER, read_results

Found = Mapping[str, Any]
Figure = Mapping[str, float]
"""A share: its value, and the interval where there is one."""

IDENTIFICATION = {"resnet34-libri30": "resnet34", "deep-speaker-libri30": "deep_speaker"}
PURIFICATION = {
    "resnet34-libri30": ("nip", "resnet34"),
    "deep-speaker-libri30": ("nip_models", "deep-speaker"),
}
NCCR = {"resnet34-libri30": "nccr_resnet34"}
PERCEPTRON = "NCCR and decision, perceptron on Combine"
DETECTED = "detected"
RATE = "0.01"
KINDS = {
    ("raw", 0.0005): "waveform, ε .0005",
    ("raw", 0.002): "waveform, ε .002",
    ("input", 4 / 255): "spectrogram, ε 4/255",
    ("input", 8 / 255): "spectrogram, ε 8/255",
}


@dataclass(frozen=True)
class Compared:
    """One headline figure before and after.

    Attributes:
        model: Name of the shipped model.
        model_id: Identity of the weights of ``after``.
        model_id_before: Identity of the weights of ``before``.
        measure: What was measured.
        before: Share on the earlier weights.
        after: Share on today's.
    """

    model: str
    model_id: str
    model_id_before: str
    measure: str
    before: Figure
    after: Figure


def of_identification(found: Found) -> Iterator[tuple[str, Figure]]:
    """Yield accuracy, and how much of it noise leaves."""
    model = found["models"][0]
    yield "right, all crops", model["all"]["clean"]
    yield "right, new chapters", model["new_chapter"]["clean"]
    for condition, words in (("noise_20_db_snr", "20 dB SNR"), ("noise_0.002_rms", ".002 rms")):
        share = model["all"][condition]["value"] / model["all"]["clean"]["value"]
        yield f"kept in white noise, {words}", {"value": share}


def of_purification(found: Found, system: str) -> Iterator[tuple[str, Figure]]:
    """Yield the guided purifier's cost on clean clips, its mean success rates, and the worst."""
    accuracy = found["systems"][system]["accuracy"]
    lost = accuracy["no defence"]["value"] - accuracy["guided"]["value"]
    yield "clean clips lost to the guided purifier", {"value": lost}
    worst = []
    for (level, eps), words in KINDS.items():
        rates = [
            row["dsr"]["value"]
            for cell in found["cells"]
            if (cell["system"], cell["level"]) == (system, level)
            and cell["eps"] is not None
            and math.isclose(cell["eps"], eps)
            for row in cell["defences"]
            if row["defence"] == "guided" and row["dsr"] is not None
        ]
        worst += rates
        yield f"purified rightly, {words}, mean", {"value": sum(rates) / len(rates)}
    yield "purified rightly, worst attack", {"value": min(worst)}


def of_detection(found: Found) -> Iterator[tuple[str, Figure]]:
    """Yield what the shipped detector finds of attacks, and mistakes of harmless clips."""
    flagged = [
        cell["flagged"][RATE]["value"] for cell in found["attacks"].values() if "flagged" in cell
    ]
    yield "attacks found at 1 %, mean", {"value": sum(flagged) / len(flagged)}
    yield "attacks found at 1 %, worst", {"value": min(flagged)}
    harmless = [row[RATE]["value"] for row in found["harmless"].values()]
    yield (
        "harmless clips flagged at 1 %, mean over conditions",
        {"value": sum(harmless) / len(harmless)},
    )
    yield "harmless clips flagged at 1 %, worst condition", {"value": max(harmless)}


def of_nccr(found: Found) -> Iterator[tuple[str, Figure]]:
    """Yield AUROC of NCCR's perceptron at the paper's strength."""
    for cell in found["cells"]:
        if cell["name"] in ("FGSM 0.002", "PGD 0.002") and cell["settings"].get("steps") in (
            None,
            10,
        ):
            yield f"AUROC of NCCR, {cell['name']}", cell["judges"][PERCEPTRON]["auroc"]


def figures(results: Found) -> dict[tuple[str, str], tuple[str, Figure]]:
    """Return all headline figures with the identity of their weights, by model and measure."""
    found: dict[tuple[str, str], tuple[str, Figure]] = {}

    def add(model: str, identity: str, rows: Iterator[tuple[str, Figure]]) -> None:
        found.update({(model, measure): (identity, figure) for measure, figure in rows})

    for model, name in IDENTIFICATION.items():
        add(model, results[name]["models"][0]["model_id"], of_identification(results[name]))
    for model, (name, system) in PURIFICATION.items():
        identity = results[name]["systems"][system]["model_id"]
        add(model, identity, of_purification(results[name], system))
    for model in IDENTIFICATION:
        detected = results[DETECTED][model]
        add(model, detected["model_id"], of_detection(detected))
    for model, name in NCCR.items():
        add(model, results[name]["about"]["model_id"], of_nccr(results[name]))
    return found


def compared(before: Found, after: Found) -> list[Compared]:
    """Return the figures whose weights differ, model by model."""
    old, new = figures(before), figures(after)
    order: Callable[[str], int] = list(IDENTIFICATION).index
    return [
        Compared(key[0], new[key][0], old[key][0], key[1], old[key][1], new[key][1])
        for key in sorted(new, key=lambda key: order(key[0]))
        if key in old and old[key][0] != new[key][0]
    ]


def main() -> None:
    """Compare two folders of results."""
    options = command(__doc__, "before", needed=("results",)).parse_args()
    names = (
        *IDENTIFICATION.values(),
        *(name for name, _ in PURIFICATION.values()),
        *NCCR.values(),
        DETECTED,
    )

    def read(folder: Path) -> Found:
        return read_results(folder, names)

    rows = compared(read(options.before), read(RESULTS_FOLDER))
    write_results(options.results, {"figures": rows})
    tell(f"{options.results}: {len(rows)} figures")


if __name__ == "__main__":
    run(main)
