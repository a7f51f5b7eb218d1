"""Write docs/results/xvector.md and its plot: python -m studies.xvector.page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from studies._lib.pages import Page

CONDITIONS = {
    "clean": "clean",
    "noise_0.002_rms": "white noise, 0.002 rms",
    "noise_20_db_snr": "white noise, 20 dB SNR",
}
TRIALS = {
    "new_chapter": "of a chapter the voice was not enrolled from",
    "same_chapter": "of a chapter it was enrolled from",
    "all": "all",
}
AGAINST_NOISE = ("nccr", "nccr_tolerant", "score_change_mean")
DETECTORS = {
    "nccr": "NCCR, clean-only",
    "nccr_tolerant": "NCCR, noise tolerated",
    "score_change_mean": "mean \\|Δscore\\|, one-sided",
    "score_change_two_sided": "\\|Δscore\\| per noise, clean-only",
}


def share(value: dict[str, float] | None) -> str:
    """A rate in percent with its interval."""
    if value is None:
        return "not evaluated"
    return f"{100 * value['value']:.1f} [{100 * value['low']:.1f}, {100 * value['high']:.1f}]"


def area(value: dict[str, float]) -> str:
    """An AUROC with its interval."""
    return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def name_of(row: dict[str, Any]) -> str:
    """Attack, strength and goal of a row."""
    label = "PGD-10" if row["attack"] == "pgd" else "FGSM"
    goal = "own speaker rejected" if row["goal"] == "reject" else "impostor accepted"
    return f"{label} ε {row['eps']:g}, {goal}"


def detection_tables(detection: dict[str, Any]) -> list[str]:
    """Success, detection at the shipped thresholds, AUROC; then the controls."""
    rates = ("0.01", "0.05")
    header = [f"{DETECTORS[d]}, {100 * float(r):g} %" for d in DETECTORS for r in rates]
    lines = [
        "### Flagged, percent, at thresholds calibrated for 1 % (the default) and 5 %",
        "",
        "| files | trials | files | SNR (dB) | " + " | ".join(header) + " |",
        "|---|---|---|---|" + "---|" * len(header),
    ]

    def flagged(table: dict[str, Any] | None) -> str:
        if table is None:
            return " not evaluated |" * len(header)
        return "".join(
            f" {share(table[d][f'detected_at_calibrated_{r}'])} |" for d in DETECTORS for r in rates
        )

    clean = detection["clean_flagged_at_calibrated"]
    cells = "".join(f" {share(clean[d][r])} |" for d in DETECTORS for r in rates)
    lines.append(f"| clean | {detection['clean_clips']} | – | – |{cells}")
    for control in detection["controls"]:
        name = f"**random ±{control['eps']:g}, no attack**"
        lines.append(f"| {name} | {control['clips']} | – | – |" + flagged(control["detectors"]))
    for row in detection["rows"]:
        noise = "–" if row["median_snr_db"] is None else f"{row['median_snr_db']:.0f}"
        counts = f"{row['attempted']} | {row['successes']} | {noise}"
        lines.append(f"| {name_of(row)} | {counts} |" + flagged(row["detectors"]))
    lines += [
        "",
        "Trials: those the system got right before. Files: written files that fool it. A row "
        "under 30 files is not evaluated.",
        "",
        "### AUROC",
        "",
        "Against the same trials, clean; in brackets its interval. Then against the same clips "
        "with random ±ε added (is it the attack that is seen, or the noise?), and, since an "
        "accepted impostor is met among accepted trials, against clean trials of the own speaker.",
        "",
        "| attack | "
        + " | ".join(DETECTORS.values())
        + "".join(f" | {DETECTORS[d]}, against equal noise" for d in AGAINST_NOISE)
        + " | mean \\|Δscore\\|, against own trials |",
        "|---|" + "---|" * (len(DETECTORS) + len(AGAINST_NOISE) + 1),
    ]
    for row in detection["rows"]:
        table = row["detectors"]
        if table is None:
            lines.append(
                f"| {name_of(row)} |"
                + " not evaluated |" * (len(DETECTORS) + len(AGAINST_NOISE) + 1)
            )
            continue
        cells = [
            *(area(table[d]["auroc"]) for d in DETECTORS),
            *(area(table[d]["auroc_against_noise"]) for d in AGAINST_NOISE),
            area(table["score_change_mean"]["auroc_against_own_trials"]),
        ]
        lines.append(f"| {name_of(row)} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "### Detected, percent, at 5 % and 1 % false positives set on the test clips themselves",
        "",
        "Comparable between detectors; no user can set such a threshold.",
        "",
        "| attack | " + " | ".join(header) + " |",
        "|---|" + "---|" * len(header),
    ]
    for row in detection["rows"]:
        table = row["detectors"]
        cells = (
            " not evaluated |" * len(header)
            if table is None
            else "".join(
                f" {share(table[d][f'detected_at_{r}'])} |" for d in DETECTORS for r in rates
            )
        )
        lines.append(f"| {name_of(row)} |" + cells)
    return lines


def found_of_pgd(detection: Mapping[str, Any]) -> tuple[str, str]:
    """Return the least and the largest share of PGD at ε 0.002 that is flagged at 1 %."""
    found = [
        100 * row["detectors"]["nccr"]["detected_at_calibrated_0.01"]["value"]
        for row in detection["rows"]
        if (row["attack"], row["eps"]) == ("pgd", 0.002)
    ]
    return f"{min(found):.0f}", f"{max(found):.0f}"


def adaptive_table(detection: dict[str, Any]) -> str:
    """What becomes of an attacker who knows the detector."""
    lines = [
        "| ε | goal | attempts | fools the system | and is not flagged at 5 % | at 1 % |",
        "|---|---|---|---|---|---|",
    ]
    for row in detection["adaptive"]:
        goal = "own speaker rejected" if row["goal"] == "reject" else "impostor accepted"
        quiet = [share(row["unnoticed"][rate]) for rate in ("0.05", "0.01")]
        cells = [f"{row['eps']:g}", goal, str(row["attempted"]), share(row["fools"]), *quiet]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def harmless_table(detection: dict[str, Any]) -> str:
    """What the screening says of clips that were changed harmlessly."""
    lines = [
        "| change | clips | adversarial at 5 % | at 1 % | out of domain |",
        "|---|---|---|---|---|",
    ]
    for row in detection["harmless"]:
        flagged = [share(row["adversarial"][rate]) for rate in ("0.05", "0.01")]
        outside = share(row["out_of_domain"]["0.01"])
        lines.append(f"| {' | '.join([row['control'], str(row['clips']), *flagged, outside])} |")
    return "\n".join(lines)


def plot(detection: dict[str, Any], path: Path) -> None:
    """Distances of clean and attacked files beside the two thresholds."""
    rows = [r for r in detection["rows"] if r["distances"]]
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    controls = detection["controls"]
    values = [detection["clean_distances"], *(r["distances"] for r in (*controls, *rows))]
    names = ["clean", *(f"random ±{c['eps']:g}" for c in controls), *(name_of(r) for r in rows)]
    axes.boxplot(values, orientation="horizontal", whis=(5, 95), flierprops={"markersize": 2})
    axes.set_yticks(range(1, len(names) + 1), names)
    axes.invert_yaxis()
    axes.set_xscale("log")
    for rate, limit in detection["distance_thresholds"].items():
        axes.axvline(limit, color="tab:red", linestyle="--" if rate == "0.05" else "-", linewidth=1)
        axes.text(limit, 0.4, f" {100 * float(rate):g} %", color="tab:red", va="bottom", fontsize=8)
    axes.set_xlabel("distance from clean evidence (boxes: quartiles, whiskers: 5–95 %)")
    figure.savefig(path, dpi=110)


HERE = Path(__file__).resolve().parent


def parts(found: dict[str, Any]) -> dict[str, object]:
    """Fill the template."""
    results = found["xvector"]
    closed, verification, detection = (
        results[part] for part in ("closed_set", "verification", "detection")
    )
    enrolled = verification["enrolled"]
    return {
        "model": results["model_id"][:12],
        "calibration": results["calibration"][:12],
        "seed": results["seed"],
        "accuracy": f"{100 * closed['clean']['value']:.0f}",
        "eer": f"{100 * enrolled['all']['value']:.1f}",
        **dict(zip(("found_low", "found_high"), found_of_pgd(detection), strict=True)),
        "closed_clips": closed["clips"],
        "closed": "\n".join(f"| {CONDITIONS[c]} | {share(closed[c])} |" for c in CONDITIONS),
        "enrolled": "\n".join(
            f"| {TRIALS[t]} | {enrolled[t]['clips']} | {enrolled[t]['speakers']} | "
            f"{share(enrolled[t])} |"
            for t in TRIALS
            if t in enrolled
        ),
        "pair_clips": verification["clips"],
        "pairs": share(verification["eer"]),
        "same_chapter": verification["target_trials_of_one_chapter"],
        "targets": verification["target_trials"],
        "impostors": verification["impostor_trials"],
        "test_clips": detection["clean_clips"],
        "threshold": f"{detection['threshold']:.3f}",
        "calibration_clips": detection["calibration_clips"],
        "baseline_clips": detection["baseline_calibration_clips"],
        "detection": "\n".join(detection_tables(detection)),
        "adaptive": adaptive_table(detection),
        "harmless": harmless_table(detection),
        "steps": detection["adaptive"][0]["steps"],
        "picture": "xvector.png",
    }


def draw(found: dict[str, Any], folder: Path) -> None:
    """Draw the distances."""
    plot(found["xvector"]["detection"], folder / "xvector.png")


PAGE = Page(
    name="xvector",
    template=HERE / "template.md",
    results=("xvector",),
    parts=parts,
    draw=draw,
)


if __name__ == "__main__":
    PAGE.run()
