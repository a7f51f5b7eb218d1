"""Write docs/results/models.md: python -m studies.models.page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studies._lib.pages import Page

HERE = Path(__file__).resolve().parent
Results = Mapping[str, Any]

CONDITIONS = ("clean", "noise_0.002_rms", "noise_20_db_snr")
MODELS = {"resnet34": "ResNet-34", "deep_speaker": "Deep Speaker", "audionet": "AudioNet"}
GROUPS = {"all": "all", "new_chapter": "of a chapter not trained on"}
LEFT_OUT = {
    "ab_all": "nothing",
    "ab_nonoise": "white noise",
    "ab_nooverlap": "another crop laid over, and its reversal",
    "ab_nofive": "pink noise, babble, reverberation, gain, dropped frequencies",
    "ab_nocodec": "codecs",
}
TRIALS = {
    "new_chapter": "of a chapter the voice was not enrolled from",
    "same_chapter": "of a chapter it was enrolled from",
    "all": "all",
}


def share(value: dict[str, float]) -> str:
    """A rate in percent with its interval."""
    return f"{100 * value['value']:.1f} [{100 * value['low']:.1f}, {100 * value['high']:.1f}]"


def identification(results: Results) -> list[str]:
    """A row for each model, seed and group of crops."""
    lines = [
        "| model | seed | parameters | crops | speakers | clean | 0.002 rms | 20 dB SNR | kept |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, title in MODELS.items():
        measured = results[name]
        length = "whole" if measured["crop_s"] is None else f"{measured['crop_s']:g} s"
        for model in measured["models"]:
            for group, size in measured["groups"].items():
                row = model[group]
                clean = row["clean"]["value"]
                kept = " / ".join(f"{100 * row[c]['value'] / clean:.1f}" for c in CONDITIONS[1:])
                cells = " | ".join(share(row[c]) for c in CONDITIONS)
                lines.append(
                    f"| {title} | {model['training_seed']} | {model['parameters']:,} | "
                    f"{size['crops']}, {length}, {GROUPS[group]} | {size['speakers']} | {cells} | "
                    f"{kept} |"
                )
    return lines


def spread(results: Results, name: str) -> float:
    """How far trainings of one model lie apart on clean clips, in points."""
    models = results[name]["models"]
    values = [model["all"]["clean"]["value"] for model in models]
    return 100 * (max(values) - min(values))


def verification(results: Results) -> list[str]:
    """Cosine and PLDA, by chapter."""
    measured = results["xvector_plda"]
    lines = [
        "| test clips | clips | speakers | cosine | PLDA | shipped |",
        "|---|---|---|---|---|---|",
    ]
    for kind, text in TRIALS.items():
        cosine, plda = measured["cosine"][kind], measured["plda"][kind]
        size = f"{cosine['clips']} | {cosine['speakers']}"
        shipped = share(measured["shipped_plda"][kind])
        lines.append(f"| {text} | {size} | {share(cosine)} | {share(plda)} | {shipped} |")
    return lines


def chosen_plda(results: Results) -> str:
    """Which PLDA won on the calibrate role, in words."""
    grid = results["xvector_plda"]["grid"]
    best = min(grid, key=lambda row: row["calibrate_eer"])
    ties = sum(row["calibrate_eer"] == best["calibrate_eer"] for row in grid)
    dims = "no LDA" if best["lda_dim"] is None else f"LDA to {best['lda_dim']} dimensions"
    return (
        f"crops of {best['crop_s']:g} s and {dims}, the first of {ties} of {len(grid)} settings "
        f"that tie at {100 * best['calibrate_eer']:.1f} % there"
    )


def baseline(results: Results) -> list[str]:
    """LDA of the long-term spectrum, on both sets of speakers."""
    lines = ["| speakers | crops | clean | 0.002 rms | 20 dB SNR |", "|---|---|---|---|---|"]
    for speakers in (30, 251):
        measured = results[f"lda_{speakers}"]
        cells = " | ".join(share(measured[c]) for c in CONDITIONS)
        lines.append(f"| {speakers} | {measured['crops']} | {cells} |")
    return lines


def fresh(results: Results) -> str:
    """How many crops the new chapters of the calibrate role have, in words."""
    size = results["runs_resnet34"]["rows"][0]["new_chapter"]
    return f"{size['crops']} crops of {size['speakers']} speakers"


def times(results: Results) -> list[str]:
    """A row for each model."""
    measured = results["forward_time"]
    cases = sorted({(row["duration_s"], row["batch"]) for row in measured["rows"]})
    header = " | ".join(f"{size} × {duration:g} s" for duration, size in cases)
    lines = [f"| model | {header} |", "|---|" + "---|" * len(cases)]
    by_model: dict[str, dict[tuple[float, int], dict[str, Any]]] = {}
    for row in measured["rows"]:
        by_model.setdefault(row["model"], {})[row["duration_s"], row["batch"]] = row
    for model, rows in by_model.items():
        cells = " | ".join(
            f"{rows[c]['milliseconds']:.0f} ms, RTF {rows[c]['real_time_factor']:.4f}"
            for c in cases
        )
        lines.append(f"| {model} | {cells} |")
    return lines


def compared(results: Results, name: str) -> list[str]:
    """A row for each training run: the options in which the runs differ, and the accuracy."""
    rows = results[f"runs_{name}"]["rows"]
    options = list(rows[0]["options"])
    fresh = "clean_new_chapter" in rows[0]
    measured = (*CONDITIONS, "clean_new_chapter") if fresh else CONDITIONS
    titles = [*options, "clean", "0.002 rms", "20 dB SNR", *["clean, new chapter"] * fresh]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for row in rows:
        chosen = [option_text(row["options"][o]) for o in options]
        lines.append("| " + " | ".join([*chosen, *(share(row[c]) for c in measured)]) + " |")
    return lines


def ablation(results: Results) -> list[str]:
    """A row for each augmentation that was left out, against the run with all of them."""
    rows = results["ablation_audionet"]["rows"]
    titles = ["left out", "clean", "0.002 rms", "20 dB SNR"]
    titles += [f"difference, {title}" for title in titles[1:]]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for row in rows:
        parts = [row["against_first"][c] for c in CONDITIONS]
        differences = [share(part) if row is not rows[0] else "–" for part in parts]
        cells = [LEFT_OUT[row["run"]], *(share(row[c]) for c in CONDITIONS), *differences]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def option_text(value: Any) -> str:
    """An option's value; switches as + and −; – where the run had no such option."""
    if isinstance(value, list) and all(isinstance(v, bool) for v in value):
        return "".join("+" if v else "−" for v in value)
    return "–" if value is None else str(value)


def parts(results: Results) -> dict[str, object]:
    """Fill the template."""
    return {
        "identification": "\n".join(identification(results)),
        "spread": f"{spread(results, 'audionet'):.1f}",
        "verification": "\n".join(verification(results)),
        "plda": chosen_plda(results),
        "baseline": "\n".join(baseline(results)),
        "fresh": fresh(results),
        "times": "\n".join(times(results)),
        "audionet_runs": "\n".join(compared(results, "audionet")),
        "ablation": "\n".join(ablation(results)),
        "resnet34_runs": "\n".join(compared(results, "resnet34")),
        "deep_speaker_runs": "\n".join(compared(results, "deep_speaker")),
    }


PAGE = Page(
    name="models",
    template=HERE / "template.md",
    results=(
        "resnet34",
        "deep_speaker",
        "audionet",
        "xvector_plda",
        "lda_30",
        "lda_251",
        "runs_resnet34",
        "runs_audionet",
        "runs_deep_speaker",
        "forward_time",
        "ablation_audionet",
        "xvector",
    ),
    parts=parts,
)


if __name__ == "__main__":
    PAGE.run()
