"""Write docs/results/models.md: python -m studies.models.page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from studies._lib.numbers import percent
from studies._lib.pages import Page
from studies._lib.tables import Columns, each, table

Results = Mapping[str, Any]
Row = Mapping[str, Any]

CONDITIONS = {
    "clean": "clean",
    "noise_0.002_rms": "0.002 rms",
    "noise_20_db_snr": "20 dB SNR",
}
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


def identification(results: Results) -> str:
    """Accuracy by model, seed and group of crops."""

    def kept(row: Row) -> str:
        found = row["found"]
        clean = found["clean"]["value"]
        return " / ".join(f"{100 * found[c]['value'] / clean:.1f}" for c in list(CONDITIONS)[1:])

    rows = [
        {
            "title": title,
            "model": model,
            "length": "whole"
            if results[name]["crop_s"] is None
            else f"{results[name]['crop_s']:g} s",
            "group": group,
            "size": size,
            "found": model[group],
        }
        for name, title in MODELS.items()
        for model in results[name]["models"]
        for group, size in results[name]["groups"].items()
    ]
    columns: Columns = {
        "model": lambda row: row["title"],
        "seed": lambda row: row["model"]["training_seed"],
        "parameters": lambda row: f"{row['model']['parameters']:,}",
        "crops": lambda row: f"{row['size']['crops']}, {row['length']}, {GROUPS[row['group']]}",
        "speakers": lambda row: row["size"]["speakers"],
        **{heading: under(c, "found") for c, heading in CONDITIONS.items()},
        "kept": kept,
    }
    return table(columns, rows)


TESTED = {
    ("sentences", "held_out"): "whole sentences not trained on",
    ("one_sentence", "held_out"): "a quarter of the one sentence, not trained on",
    ("one_sentence", "other_sentences"): "other sentences of the speakers who have more",
}


def vctk(results: Results) -> str:
    """Accuracy on VCTK by closed set and by what was tested."""

    def shown(condition: str, place: tuple[str, str]) -> str:
        found = results["vctk"][place[0]][place[1]]
        return f"{found['right'][condition]} of {found['clips']}: {percent(found[condition])} %"

    columns: Columns = {
        "speakers known": lambda place: results["vctk"][place[0]]["held_out"]["speakers"],
        "speech of each": lambda place: f"{results['vctk'][place[0]]['trained_s_a_speaker']:.0f} s",
        "tested": lambda place: TESTED[place],
        **{heading: partial(shown, condition) for condition, heading in CONDITIONS.items()},
    }
    return table(columns, TESTED)


def slowest(results: Results) -> float:
    """Seconds of the slowest training on VCTK."""
    return float(max(found["slowest_training_s"] for found in results["vctk"].values()))


def under(condition: str, *place: str) -> Callable[[Row], str]:
    """Return what shows the accuracy under a condition; it may stand a place deeper in the row."""

    def show(row: Row) -> str:
        for key in place:
            row = row[key]
        return percent(row[condition])

    return show


def spread(results: Results, name: str) -> float:
    """How far trainings of one model lie apart on clean clips, in points."""
    models = results[name]["models"]
    values = [model["all"]["clean"]["value"] for model in models]
    return 100 * float(max(values) - min(values))


def verification(results: Results) -> str:
    """Cosine and PLDA, by chapter."""
    measured = results["xvector_plda"]
    columns: Columns = {
        "test clips": lambda kind: TRIALS[kind],
        "clips": lambda kind: measured["cosine"][kind]["clips"],
        "speakers": lambda kind: measured["cosine"][kind]["speakers"],
        "cosine": lambda kind: percent(measured["cosine"][kind]),
        "PLDA": lambda kind: percent(measured["plda"][kind]),
        "shipped": lambda kind: percent(measured["shipped_plda"][kind]),
    }
    return table(columns, TRIALS)


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


def baseline(results: Results) -> str:
    """LDA of the long-term spectrum, on both sets of speakers."""
    rows = [
        (speakers, group, results[f"lda_{speakers}"][group])
        for speakers in (30, 251)
        for group in GROUPS
        if group in results[f"lda_{speakers}"]
    ]
    columns: Columns = {
        "speakers": lambda row: row[0],
        "crops": lambda row: f"{row[2]['crops']}, {GROUPS[row[1]]}",
        **each(CONDITIONS, lambda condition, row: percent(row[2][condition])),
    }
    return table(columns, rows)


def fresh(results: Results) -> str:
    """How many crops the new chapters of the calibrate role have, in words."""
    size = results["runs_resnet34"]["rows"][0]["new_chapter"]
    return f"{size['crops']} crops of {size['speakers']} speakers"


def times(results: Results) -> str:
    """Milliseconds and real-time factor by model, batch and duration."""
    measured = {
        (row["model"], row["duration_s"], row["batch"]): row
        for row in results["forward_time"]["rows"]
    }

    def time(duration_s: float, size: int, model: str) -> str:
        row = measured[model, duration_s, size]
        return f"{row['milliseconds']:.0f} ms, RTF {row['real_time_factor']:.4f}"

    columns: Columns = {
        "model": lambda model: model,
        **{
            f"{size} × {duration:g} s": partial(time, duration, size)
            for duration, size in sorted({key[1:] for key in measured})
        },
    }
    return table(columns, dict.fromkeys(model for model, *_ in measured))


def compared(results: Results, name: str) -> str:
    """Accuracy of each training run, beside the options in which the runs differ."""
    rows = results[f"runs_{name}"]["rows"]

    def chosen(option: str, row: Row) -> str:
        return option_text(row["options"][option])

    columns: Columns = {
        **{option: partial(chosen, option) for option in rows[0]["options"]},
        **{heading: under(c) for c, heading in CONDITIONS.items()},
    }
    if "clean_new_chapter" in rows[0]:
        columns = {**columns, "clean, new chapter": under("clean_new_chapter")}
    return table(columns, rows)


def ablation(results: Results) -> str:
    """Accuracy without one augmentation, and the difference to the run with all of them."""
    rows = results["ablation_audionet"]["rows"]

    def difference(condition: str, row: Row) -> str:
        return "–" if row is rows[0] else percent(row["against_first"][condition])

    columns: Columns = {
        "left out": lambda row: LEFT_OUT[row["run"]],
        **{heading: under(c) for c, heading in CONDITIONS.items()},
        **{
            f"difference, {heading}": partial(difference, condition)
            for condition, heading in CONDITIONS.items()
        },
    }
    return table(columns, rows)


def option_text(value: Any) -> str:
    """An option's value; switches as + and −; – where the run had no such option."""
    if isinstance(value, list) and all(isinstance(v, bool) for v in value):
        return "".join("+" if v else "−" for v in value)
    return "–" if value is None else str(value)


def parts(results: Results) -> dict[str, object]:
    """Fill the template."""
    return {
        "identification": identification(results),
        "spread": f"{spread(results, 'audionet'):.1f}",
        "vctk": vctk(results),
        "slowest": f"{slowest(results):.0f}",
        "verification": verification(results),
        "plda": chosen_plda(results),
        "baseline": baseline(results),
        "fresh": fresh(results),
        "times": times(results),
        "audionet_runs": compared(results, "audionet"),
        "ablation": ablation(results),
        "resnet34_runs": compared(results, "resnet34"),
        "deep_speaker_runs": compared(results, "deep_speaker"),
        "teacher_runs": compared(results, "teacher"),
    }


PAGE = Page(
    "models",
    __file__,
    (
        "resnet34",
        "deep_speaker",
        "audionet",
        "xvector_plda",
        "lda_30",
        "lda_251",
        "runs_resnet34",
        "runs_audionet",
        "runs_deep_speaker",
        "runs_teacher",
        "runs_teacher_deep_speaker",
        "forward_time",
        "ablation_audionet",
        "xvector",
        "vctk",
    ),
    parts,
)


if __name__ == "__main__":
    PAGE.run()
