"""Write docs/results/xvector.md and its plot: python -m studies.xvector.page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from studies._lib.numbers import number, percent
from studies._lib.pages import Page
from studies._lib.tables import Columns, each, table

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
GOALS = {"reject": "own speaker rejected", "accept": "impostor accepted"}
RATES = ("0.01", "0.05")
AGAINST_NOISE = ("nccr", "nccr_tolerant", "score_change_mean")
DETECTORS = {
    "nccr": "NCCR, clean-only",
    "nccr_tolerant": "NCCR, noise tolerated",
    "score_change_mean": "mean |Δscore|, one-sided",
    "score_change_two_sided": "|Δscore| per noise, clean-only",
}
JUDGED = {
    (detector, rate): f"{title}, {100 * float(rate):g} %"
    for detector, title in DETECTORS.items()
    for rate in RATES
}


def name_of(row: Mapping[str, Any]) -> str:
    """Attack, strength and goal of a row."""
    label = "PGD-10" if row["attack"] == "pgd" else "FGSM"
    return f"{label} ε {row['eps']:g}, {GOALS[row['goal']]}"


def flagged_table(detection: Mapping[str, Any]) -> str:
    """Share of files that each detector flags at the shipped thresholds; controls first."""
    clean = {d: detection["clean_flagged_at_calibrated"][d] for d in DETECTORS}
    rows = [("clean", detection["clean_clips"], "–", "–", lambda d, r: clean[d][r])]
    for control in detection["controls"]:
        name = f"**random ±{control['eps']:g}, no attack**"
        rows.append((name, control["clips"], "–", "–", _at(control, "calibrated_")))
    for row in detection["rows"]:
        noise = "–" if row["median_snr_db"] is None else f"{row['median_snr_db']:.0f}"
        counts = row["attempted"], row["successes"], noise
        rows.append((name_of(row), *counts, _at(row, "calibrated_")))
    columns: Columns = {
        "files": lambda row: row[0],
        "trials": lambda row: row[1],
        "files that fool": lambda row: row[2],
        "SNR (dB)": lambda row: row[3],
        **each(JUDGED, lambda key, row: percent(row[4](*key))),
    }
    return table(columns, rows)


def _at(row: Mapping[str, Any], kind: str) -> Callable[[str, str], Mapping[str, float] | None]:
    """Return what finds a detector's rate in a row; nothing where it was not evaluated."""
    detectors = row["detectors"]
    return lambda d, r: None if detectors is None else detectors[d][f"detected_at_{kind}{r}"]


def auroc_table(detection: Mapping[str, Any]) -> str:
    """AUROC of every detector, against clean trials and against noise."""

    def auroc(detector: str, against: str = "") -> Callable[[Mapping[str, Any]], str]:
        return lambda row: number(
            row["detectors"] and row["detectors"][detector][f"auroc{against}"]
        )

    columns: Columns = {
        "attack": name_of,
        **{title: auroc(d) for d, title in DETECTORS.items()},
        **{
            f"{DETECTORS[d]}, against equal noise": auroc(d, "_against_noise")
            for d in AGAINST_NOISE
        },
        "mean |Δscore|, against own trials": auroc("score_change_mean", "_against_own_trials"),
    }
    return table(columns, detection["rows"])


def detected_table(detection: Mapping[str, Any]) -> str:
    """Share detected at thresholds set on the test clips themselves."""
    columns: Columns = {
        "attack": name_of,
        **each(JUDGED, lambda key, row: percent(_at(row, "")(*key))),
    }
    return table(columns, detection["rows"])


def enrolled_table(enrolled: Mapping[str, Any]) -> str:
    """EER of clips against enrolled voices."""
    columns: Columns = {
        "test clips": TRIALS.get,
        "clips": lambda kind: enrolled[kind]["clips"],
        "speakers": lambda kind: enrolled[kind]["speakers"],
        "EER, percent": lambda kind: percent(enrolled[kind]),
    }
    return table(columns, (kind for kind in TRIALS if kind in enrolled))


def found_of_pgd(detection: Mapping[str, Any]) -> tuple[str, str]:
    """Return the least and the largest share of PGD at ε 0.002 that is flagged at 1 %."""
    found = [
        100 * row["detectors"]["nccr"]["detected_at_calibrated_0.01"]["value"]
        for row in detection["rows"]
        if (row["attack"], row["eps"]) == ("pgd", 0.002)
    ]
    return f"{min(found):.0f}", f"{max(found):.0f}"


def adaptive_table(detection: Mapping[str, Any]) -> str:
    """Success of an attacker who knows the detector."""
    columns: Columns = {
        "ε": lambda row: f"{row['eps']:g}",
        "goal": lambda row: GOALS[row["goal"]],
        "attempts": lambda row: row["attempted"],
        "fools the system": lambda row: percent(row["fools"]),
        "and is not flagged at 5 %": lambda row: percent(row["unnoticed"]["0.05"]),
        "at 1 %": lambda row: percent(row["unnoticed"]["0.01"]),
    }
    return table(columns, detection["adaptive"])


def harmless_table(detection: Mapping[str, Any]) -> str:
    """What the screening says of clips that were changed harmlessly."""
    columns: Columns = {
        "change": lambda row: row["control"],
        "clips": lambda row: row["clips"],
        "adversarial at 5 %": lambda row: percent(row["adversarial"]["0.05"]),
        "at 1 %": lambda row: percent(row["adversarial"]["0.01"]),
        "out of domain": lambda row: percent(row["out_of_domain"]["0.01"]),
    }
    return table(columns, detection["harmless"])


def plot(detection: Mapping[str, Any], path: Path) -> None:
    """Distances of clean and attacked files beside the two thresholds."""
    rows = [r for r in detection["rows"] if r["distances"]]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
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


def parts(found: Mapping[str, Any]) -> dict[str, object]:
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
        "closed": table(
            {"condition": CONDITIONS.get, "accuracy, percent": lambda c: percent(closed[c])},
            CONDITIONS,
        ),
        "enrolled": enrolled_table(enrolled),
        "pair_clips": verification["clips"],
        "pairs": percent(verification["eer"]),
        "same_chapter": verification["target_trials_of_one_chapter"],
        "targets": verification["target_trials"],
        "impostors": verification["impostor_trials"],
        "test_clips": detection["clean_clips"],
        "threshold": f"{detection['threshold']:.3f}",
        "calibration_clips": detection["calibration_clips"],
        "baseline_clips": detection["baseline_calibration_clips"],
        "flagged": flagged_table(detection),
        "auroc": auroc_table(detection),
        "detected": detected_table(detection),
        "adaptive": adaptive_table(detection),
        "harmless": harmless_table(detection),
        "steps": detection["adaptive"][0]["steps"],
        "plot": "xvector.png",
    }


def draw(found: Mapping[str, Any], folder: Path) -> None:
    """Draw the distances."""
    plot(found["xvector"]["detection"], folder / "xvector.png")


PAGE = Page("xvector", __file__, ("xvector",), parts, draw)


if __name__ == "__main__":
    PAGE.run()
