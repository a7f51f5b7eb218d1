"""Write docs/xvector.md and its plot from the results of measure.py.

python write_page.py ../../../docs/results/xvector.json ../../../docs/xvector.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

CONDITIONS = {
    "clean": "clean",
    "noise_0.002_rms": "white noise, 0.002 rms",
    "noise_20_db_snr": "white noise, 20 dB SNR",
}
TRIALS = {
    "all": "all clips",
    "same_chapter": "clips of a chapter the voice was enrolled from",
    "new_chapter": "clips of a chapter the voice never saw",
}
DETECTORS = {
    "nccr": "NCCR, clean-only",
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
    """Success, AUROC and detection of every attack."""
    lines = [
        "| attack | trials | fooled by the file | SNR (dB) | "
        + " | ".join(DETECTORS.values())
        + " |",
        "|---|---|---|---|" + "---|" * len(DETECTORS),
    ]
    for row in detection["rows"]:
        table = row["detectors"]
        cells = [
            "not evaluated (under 30 successes)" if table is None else area(table[d]["auroc"])
            for d in DETECTORS
        ]
        noise = "–" if row["median_snr_db"] is None else f"{row['median_snr_db']:.0f}"
        lines.append(
            f"| {name_of(row)} | {row['attempted']} | {row['successes']} | {noise} | "
            + " | ".join(cells)
            + " |"
        )
    lines.append(
        "| adaptive: knows the detector | – | not evaluated | – | " + "not evaluated | " * 3
    )
    lines += [
        "",
        "Detected, in percent of the successful files. The false-positive rate is set on the test "
        "role's own clean files; *calibrated* is the threshold as shipped, set on `calibrate`.",
        "",
        "| attack | NCCR 5 % | NCCR 1 % | NCCR calibrated 5 % | calibrated 1 % "
        "| mean \\|Δscore\\| 5 % | 1 % | \\|Δscore\\| clean-only 5 % | 1 % |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in detection["rows"]:
        table = row["detectors"]
        if table is None:
            lines.append(f"| {name_of(row)} |" + " not evaluated |" * 8)
            continue
        cells = [
            *(share(table["nccr"][f"detected_at_{p}_percent"]) for p in (5, 1)),
            *(share(table["nccr"][f"detected_at_calibrated_{p}"]) for p in ("0.05", "0.01")),
        ]
        for other in ("score_change_mean", "score_change_two_sided"):
            cells += [share(table[other][f"detected_at_{p}_percent"]) for p in (5, 1)]
        lines.append(f"| {name_of(row)} | " + " | ".join(cells) + " |")
    return lines


def plot(detection: dict[str, Any], path: Path) -> None:
    """Distances of clean and attacked files beside the two thresholds."""
    rows = [r for r in detection["rows"] if r["distances"]]
    figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    values = [detection["clean_distances"], *(r["distances"] for r in rows)]
    names = ["clean", *(name_of(r) for r in rows)]
    axes.boxplot(values, orientation="horizontal", whis=(5, 95), flierprops={"markersize": 2})
    axes.set_yticks(range(1, len(names) + 1), names)
    axes.invert_yaxis()
    axes.set_xscale("log")
    for rate, limit in detection["distance_thresholds"].items():
        axes.axvline(limit, color="tab:red", linestyle="--" if rate == "0.05" else "-", linewidth=1)
        axes.text(limit, 0.4, f" {100 * float(rate):g} %", color="tab:red", va="bottom", fontsize=8)
    axes.set_xlabel("distance from clean NCCR vectors (boxes: quartiles, whiskers: 5–95 %)")
    figure.savefig(path, dpi=110)


def page(results: dict[str, Any], picture: str) -> str:
    """The whole page."""
    closed, verification, detection = (
        results[part] for part in ("closed_set", "verification", "detection")
    )
    false = detection["false_positives_at_calibrated_threshold"]
    lines = [
        "# xvector-libri251, measured",
        "",
        "Written by `python recipes/LibriSpeech/Xvector/write_page.py docs/results/xvector.json "
        "docs/xvector.md` from what `measure.py` beside it measured (its docstring has the "
        "command). "
        f"Model `{results['model_id'][:12]}`, calibration `{results['calibration'][:12]}`, seed "
        f"{results['seed']}. Brackets are 95 % bootstrap intervals; one training run.",
        "",
        "Data: LibriSpeech. The model was trained on 251 speakers of train-clean-100, one "
        "utterance "
        "each, of which the first 5 s or so (21 minutes in all); speakers of test-clean are "
        "strangers "
        "to it. Roles are those of a fixed split: nothing below was fitted on the `test` role.",
        "",
        "## Accuracy on the 251 speakers it was trained on",
        "",
        f"{closed['clips']} clips, the last 2.4 s of the same utterances: the same sitting, "
        "which is "
        "easier than the real task.",
        "",
        "| condition | accuracy, percent |",
        "|---|---|",
        *(f"| {CONDITIONS[c]} | {share(closed[c])} |" for c in CONDITIONS),
        "",
        "## Verification of 30 strangers, by cosine",
        "",
        f"All pairs of {verification['clips']} test clips ({verification['target_trials']} "
        "target and "
        f"{verification['impostor_trials']} impostor trials): EER {share(verification['eer'])} "
        "percent. "
        "Most target pairs are of one chapter, hence one sitting. Against voices enrolled from the "
        "`train` role (intervals by resampling speakers):",
        "",
        "| test clips | number | EER, percent |",
        "|---|---|---|",
        *(
            f"| {TRIALS[t]} | {verification['enrolled'][t]['clips']} "
            f"| {share(verification['enrolled'][t])} |"
            for t in TRIALS
            if t in verification["enrolled"]
        ),
        "",
        "## Detection of adversarial files among strangers",
        "",
        "Threat model: the attacker has the model, its gradients and the enrolled voices, and "
        "does not "
        "know of the detector. Waveform-level attacks on every test clip: its own speaker is to be "
        "rejected, or it is to be accepted as another speaker "
        f"(threshold {detection['threshold']:.3f}, the EER point of `calibrate`). Examples are "
        "written "
        "as 16-bit wav, read back, and count only if the *written file* fools the model and the "
        "clean "
        "one did not.",
        "",
        f"Detector: fitted and calibrated on {detection['calibration_clips']} clean clips of the "
        f"`calibrate` role, no attack; compared with {detection['clean_clips']} clean test clips. "
        "The baselines are how much the score of the very same trial changes under the very same "
        "noise "
        "draws: averaged, and one value a kind of noise with the detector NCCR uses, fitted on "
        "`calibrate` too.",
        "",
        "AUROC:",
        "",
        *detection_tables(detection),
        "",
        "Clean test clips flagged at the calibrated thresholds: "
        + ", ".join(f"{share(false[r])} percent at a stated {100 * float(r):g} %" for r in false)
        + ".",
        "",
        f"![Distances]({picture})",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Read the command line."""
    results, target = map(Path, sys.argv[1:3])
    data = json.loads(results.read_text(encoding="utf-8"))
    picture = target.with_suffix(".png")
    plot(data["detection"], picture)
    target.write_text(page(data, picture.name), encoding="utf-8")


if __name__ == "__main__":
    main()
