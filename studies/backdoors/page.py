"""Write docs/results/backdoors.md and its plot: python -m studies.backdoors.page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nip_audio.evaluation.tables import (
    BACKDOOR_COLUMNS,
    NOT_EVALUATED,
    backdoor_cells,
    markdown,
    share,
)
from studies._lib.pages import Page
from studies.backdoors.models import NO_TRIGGER
from studies.backdoors.plots import plot_rates

VIEWS = {
    "outputs": "activations, grouped",
    "changes": "changes, grouped",
    "both": "NCCR, grouped",
}
GOAL = 0.97
DETECTORS = {
    "NCCR, grouped": "NCCR by name",
    "changes, grouped": "changes alone",
    "activations, grouped": "outputs alone",
    "NCCR, published": "NCCR as published",
    "activation clustering, silhouette-scores": "AC, silhouette",
    "activation clustering, smaller": "AC, smaller",
    "activation clustering, told label and cluster": "AC, told where",
    "STRIP": "STRIP",
}


def poisoned(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the cases with a trigger."""
    return [case for case in results["cases"] if case["trigger"] != NO_TRIGGER]


def clean(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the cases without poison."""
    return [case for case in results["cases"] if case["trigger"] == NO_TRIGGER]


def attack_table(results: Mapping[str, Any]) -> str:
    """Write accuracy and attack success of each case."""
    rows = [
        [
            case["trigger"],
            str(case["seed"]),
            "–" if case["snr_db"] is None else f"{case['snr_db']:.1f}",
            share(case["success"]["accuracy"]),
            share(case["success"]["attack"]) if "attack" in case["success"] else "–",
            share(case["success"]["without"]),
        ]
        for case in results["cases"]
    ]
    columns = ["trigger", "seed", "SNR dB", "accuracy", "attack success", "without the trigger"]
    return markdown(columns, rows)


def number(found: Mapping[str, Any] | None) -> str:
    """Format F1 with its interval, in bold if it reaches the goal."""
    if found is None:
        return NOT_EVALUATED
    f1 = found["f1"]
    text = f"{f1['value']:.3f} [{f1['low']:.3f}, {f1['high']:.3f}]"
    return f"**{text}**" if f1["value"] >= GOAL else text


def f1_table(results: Mapping[str, Any], which: str) -> str:
    """Write the F1 of every detector."""
    cases = poisoned(results)
    asked = [name for name in DETECTORS if any(name in case[which] for case in cases)]
    rows = [
        [
            case["trigger"],
            str(case["seed"]),
            *(number(case[which].get(name)) for name in asked),
        ]
        for case in cases
    ]
    return markdown(["trigger", "seed", *(DETECTORS[name] for name in asked)], rows)


def alarm_table(results: Mapping[str, Any], which: str) -> str:
    """Write how far the target stands out, with further measurements."""
    rows = []
    for case in results["cases"]:
        ours, published = case[which]["NCCR, grouped"], case[which]["NCCR, published"]
        bare = case["trigger"] == NO_TRIGGER
        rows.append(
            [
                case["trigger"],
                str(case["seed"]),
                f"{ours['poisoned']} of {ours['files']}",
                str(ours["accused"]),
                *backdoor_cells(ours),
                f"{published['silhouette']:.2f}",
                f"{published['auroc of the scalar']:.3f}" if not bare else "–",
                f"{published['f1 if told the cluster']:.3f}" if not bare else "–",
            ]
        )
    columns = ["trigger", "seed", "poisoned", "accused", *BACKDOOR_COLUMNS]
    columns += ["silhouette, whole set", "AUROC of the scalar"]
    return markdown([*columns, "F1 told the cluster"], rows)


def clean_table(results: Mapping[str, Any]) -> str:
    """Write what is flagged in clean sets."""
    cases = clean(results)
    asked = [name for name in DETECTORS if any(name in case["train"] for case in cases)]
    rows = [
        [
            str(case["seed"]),
            which,
            *(
                f"{case[which][name]['accused']} of {case[which][name]['files']}"
                if name in case[which]
                else NOT_EVALUATED
                for name in asked
            ),
        ]
        for case in cases
        for which in ("train", "enrolment")
    ]
    return markdown(["seed", "set", *(DETECTORS[name] for name in asked)], rows)


def verdict(results: Mapping[str, Any], which: str, seeds: Sequence[int]) -> str:
    """Write in how many cases of some seeds the goal is reached."""
    cases = [case for case in poisoned(results) if case["seed"] in seeds]
    values = [(case[which]["NCCR, grouped"]["f1"]["value"], case) for case in cases]
    hits = sum(value >= GOAL for value, _ in values)
    least, case = min(values, key=lambda pair: pair[0])
    return (
        f"an F1 of {GOAL} in {hits} of {len(values)} cases; the least is {least:.3f} "
        f"({case['trigger']}, seed {case['seed']})"
    )


def f1_range(results: Mapping[str, Any], which: str, trigger: str) -> str:
    """Return the least and the largest F1 against one trigger."""
    found = [
        case[which]["NCCR, grouped"]["f1"]["value"]
        for case in results["cases"]
        if case["trigger"] == trigger
    ]
    return f"{min(found):.2f} to {max(found):.2f}"


def missed(results: Mapping[str, Any], which: str, detector: str) -> str:
    """Return in how many poisoned sets a detector does not find a single poisoned file."""
    found = [case[which][detector]["f1"]["value"] for case in poisoned(results)]
    return f"{sum(value == 0 for value in found)} of {len(found)}"


def highest(cases: Sequence[Mapping[str, Any]], key: str) -> str:
    """Return the highest score of a label without poison."""
    found = (
        case[which]["NCCR, grouped"][key] for case in cases for which in ("train", "enrolment")
    )
    return f"{max(value for value in found if value is not None):.1f}"


def innocent(results: Mapping[str, Any]) -> str:
    """Write in how many clean sets something is flagged."""
    sets = [
        case[which]["NCCR, grouped"] for case in clean(results) for which in ("train", "enrolment")
    ]
    if not sets:
        return "No clean model is judged yet"
    accused = sum(found["accused"] > 0 for found in sets)
    return f"Of {len(sets)} clean sets of {len(clean(results))} clean models it accuses {accused}"


def listed(names: Sequence[str]) -> str:
    """Write the list of missing cases."""
    return ", ".join(names) or "none"


def parts(found: Mapping[str, Any]) -> dict[str, object]:
    """Fill the template."""
    results = found["backdoors"]
    judging, seeds, fresh = results["judging"], results["plan"]["seeds"], results["plan"]["fresh"]
    return {
        **{name: results["counts"][name] for name in ("train", "test")},
        **{name: judging[name] for name in ("destroying", "draws")},
        **{name: results[name] for name in ("speakers", "strip_clean")},
        "layers": " and ".join(f"`{layer}`" for layer in judging["layers"]),
        "overlays": judging["strip_overlays"],
        "f1_goal": GOAL,
        "limit": f"{judging['detector']['limit']:g}",
        "least": f"{judging['detector']['least_alarm']:g}",
        "most": f"{judging['detector']['most_alarm']:g}",
        "crop": f"{results['plan']['crop_s']:g}",
        "share": f"{100 * results['plan']['share']:g}",
        "epochs": results["plan"]["training"]["epochs"],
        "split": results["split_sha256"][:12],
        "versions": ", ".join(f"{name} {v}" for name, v in results["versions"].items()),
        "unfinished": listed(results["unfinished"]),
        "fresh": verdict(results, "train", fresh),
        "fresh_hits": verdict(results, "train", fresh).split(" in ")[1].split(" cases")[0],
        "verdict": verdict(results, "train", seeds),
        "fresh_enrolment": verdict(results, "enrolment", fresh),
        "enrolment_verdict": verdict(results, "enrolment", seeds),
        "fresh_seeds": " and ".join(map(str, fresh)),
        "innocent": innocent(results),
        "room": f1_range(results, "train", "reverberation"),
        "room_enrolment": f1_range(results, "enrolment", "reverberation"),
        **{
            f"missed_{name}{suffix}": missed(results, which, detector)
            for which, suffix in (("train", ""), ("enrolment", "_enrolment"))
            for name, detector in VIEWS.items()
        },
        "highest_clean": highest(clean(results), "highest score"),
        "highest_other": highest(poisoned(results), "highest other score"),
        "attacks": attack_table(results),
        "f1": f1_table(results, "train"),
        "f1_enrolment": f1_table(results, "enrolment"),
        "alarms": alarm_table(results, "train"),
        "clean": clean_table(results),
    }


def draw(found: Mapping[str, Any], folder: Path) -> None:
    """Plot the scalar NCCR of clean and poisoned clips."""
    results = found["backdoors"]
    (folder / "pictures").mkdir(exist_ok=True)
    shown = results["plan"]["baselines"]  # all seeds are too many for one plot
    plot_rates(
        [case for case in poisoned(results) if case["seed"] in shown],
        folder / "pictures" / "backdoor_rates.png",
        {name: results["judging"][name] for name in ("small", "destroying")},
    )


PAGE = Page("backdoors", __file__, ("backdoors",), parts, draw)


if __name__ == "__main__":
    PAGE.run()
