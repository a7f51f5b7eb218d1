"""Write docs/results/backdoors.md and its plot: python -m studies.backdoors.page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nip_audio.evaluation.tables import BACKDOOR_COLUMNS, backdoor_cells
from studies._lib.numbers import NOT_EVALUATED, number, percent
from studies._lib.pages import Page
from studies._lib.tables import Columns, each, table
from studies.backdoors.models import NO_TRIGGER
from studies.backdoors.plots import plot_rates

VIEWS = {
    "outputs": "activations, grouped",
    "changes": "changes, grouped",
    "both": "NCCR, grouped",
}
GOAL = 0.97
DETECTORS = {
    "NCCR, grouped": "ours, by name",
    "changes, grouped": "changes alone",
    "activations, grouped": "outputs alone",
    "NCCR, published": "NCCR, two clusters",
    "activation clustering, silhouette": "AC, silhouette",
    "activation clustering, reclassification": "AC, reclassification",
    "activation clustering, silhouette-scores": "AC, ART's silhouette",
    "activation clustering, smaller": "AC, ART's smaller",
    "activation clustering, told label and cluster": "AC, told where",
    "STRIP": "STRIP",
    "STRIP, ART's entropy": "STRIP, ART's entropy",
}


def poisoned(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the cases with a trigger."""
    return [case for case in results["cases"] if case["trigger"] != NO_TRIGGER]


def clean(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the cases without poison."""
    return [case for case in results["cases"] if case["trigger"] == NO_TRIGGER]


CASE: Columns = {"trigger": lambda case: case["trigger"], "seed": lambda case: case["seed"]}


def attack_table(results: Mapping[str, Any]) -> str:
    """Write accuracy and attack success of each case."""
    columns: Columns = {
        **CASE,
        "SNR dB": lambda case: "–" if case["snr_db"] is None else f"{case['snr_db']:.1f}",
        "accuracy": lambda case: percent(case["success"]["accuracy"]),
        "attack success": lambda case: (
            percent(case["success"]["attack"]) if "attack" in case["success"] else "–"
        ),
        "without the trigger": lambda case: percent(case["success"]["without"]),
    }
    return table(columns, results["cases"])


def bold(found: Mapping[str, Any] | None) -> str:
    """Format F1 with its interval, in bold if it reaches the goal."""
    if found is None:
        return NOT_EVALUATED
    text = number(found["f1"])
    return f"**{text}**" if found["f1"]["value"] >= GOAL else text


def asked(cases: Sequence[Mapping[str, Any]], which: str) -> Mapping[str, str]:
    """Return the detectors that have judged at least one of the cases."""
    judged = {name for case in cases for name in case[which]}
    return {name: title for name, title in DETECTORS.items() if name in judged}


def f1_table(results: Mapping[str, Any], which: str) -> str:
    """Write the F1 of every detector."""
    cases = poisoned(results)
    f1 = each(asked(cases, which), lambda name, case: bold(case[which].get(name)))
    return table({**CASE, **f1}, cases)


def alarm_table(results: Mapping[str, Any], which: str) -> str:
    """Write how far the target stands out, with further measurements."""

    def published(key: str, case: Mapping[str, Any]) -> str:
        bare = case["trigger"] == NO_TRIGGER
        return "–" if bare else f"{case[which]['NCCR, published'][key]:.3f}"

    def ours(case: Mapping[str, Any]) -> Mapping[str, Any]:
        found: Mapping[str, Any] = case[which]["NCCR, grouped"]
        return found

    told = {
        "auroc of the scalar": "AUROC of the scalar",
        "f1 if told the cluster": "F1 told the cluster",
    }
    columns: Columns = {
        **CASE,
        "poisoned": lambda case: "{poisoned} of {files}".format(**ours(case)),
        "accused": lambda case: ours(case)["accused"],
        **each(dict(enumerate(BACKDOOR_COLUMNS)), lambda i, case: backdoor_cells(ours(case))[i]),
        "silhouette, whole set": lambda case: f"{case[which]['NCCR, published']['silhouette']:.2f}",
        **each(told, published),
    }
    return table(columns, results["cases"])


def clean_table(results: Mapping[str, Any]) -> str:
    """Write what is flagged in clean sets."""

    def accused(name: str, row: tuple[Mapping[str, Any], str]) -> str:
        found = row[0][row[1]].get(name)
        return "{accused} of {files}".format(**found) if found else NOT_EVALUATED

    cases = clean(results)
    columns: Columns = {
        "seed": lambda row: row[0]["seed"],
        "set": lambda row: row[1],
        **each(asked(cases, "train"), accused),
    }
    return table(columns, [(case, which) for case in cases for which in ("train", "enrolment")])


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
    (folder / "plots").mkdir(exist_ok=True)
    shown = results["plan"]["baselines"]  # all seeds are too many for one plot
    plot_rates(
        [case for case in poisoned(results) if case["seed"] in shown],
        folder / "plots" / "backdoor_rates.png",
        {name: results["judging"][name] for name in ("small", "destroying")},
    )


PAGE = Page("backdoors", __file__, ("backdoors",), parts, draw)


if __name__ == "__main__":
    PAGE.run()
