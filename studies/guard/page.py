"""Write docs/results/speechbrain.md: python -m studies.guard.page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from studies._lib.numbers import percent
from studies._lib.pages import Page
from studies._lib.tables import Columns, each, table

SETS = {"clean": "none", "triggers": "triggers", "copies": "copies"}
GUARDS = {"nothing": "none", "screening": "screening", "backdoor search": "backdoor search"}


Row = tuple[str, int, Mapping[str, Any]]
CASE: Columns = {"poison": lambda row: row[0], "seed": lambda row: row[1]}


def rows_of(results: Mapping[str, Any]) -> Iterator[Row]:
    """Go through sets, then seeds."""
    for name, shown in SETS.items():
        for case in results["cases"]:
            yield shown, case["seed"], case["sets"][name]


def dropped_table(results: Mapping[str, Any]) -> str:
    """Write how many files each guard drops."""

    def dropped(row: Row, guard: str) -> Mapping[str, int]:
        found: Mapping[str, int] = (
            row[2]["looser"] if guard == "looser" else row[2]["guards"][guard]["dropped"]
        )
        return found

    def shown(key: tuple[str, str], row: Row) -> str:
        guard, kind = key
        bad, files = row[2]["poisoned"], row[2]["files"]
        of = bad if kind == "poisoned" else files - bad
        return f"{dropped(row, guard)[kind]} of {of}" if of else "–"

    plan = results["plan"]
    titles = {
        "screening": f"screening at {plan['fpr']:g}",
        "backdoor search": "search",
        "looser": f"screening at {plan['looser_fpr']:g}",
    }
    headings: dict[tuple[str, str], str] = {}
    for guard, title in titles.items():
        headings[guard, "poisoned"] = f"{title}: poisoned"
        headings[guard, "clean"] = "clean" + " " * len(headings)
    columns: Columns = {
        **CASE,
        "poisoned": lambda row: f"{row[2]['poisoned']} of {row[2]['files']}",
        **each(headings, shown),
    }
    return table(columns, rows_of(results))


def verdict_table(results: Mapping[str, Any]) -> str:
    """Write the verdicts of the screening."""

    def counts(verdict: str, row: Row) -> str:
        found = row[2]["verdicts"]
        return " / ".join(str(found[kind].get(verdict, 0)) for kind in ("poisoned", "clean"))

    names = {
        v for *_, found in rows_of(results) for kind in found["verdicts"].values() for v in kind
    }
    return table({**CASE, **each(sorted(names), counts)}, rows_of(results))


def attack_table(results: Mapping[str, Any]) -> str:
    """Write accuracy and the poisoner's success."""
    rows = [(*row, guard) for row in rows_of(results) for guard in GUARDS]
    headings = {
        "accuracy": "accuracy",
        "triggered": "others with the trigger → target",
        "outsider": "outsiders → target",
    }
    columns: Columns = {
        **CASE,
        "guard": lambda row: GUARDS[row[3]],
        **each(headings, lambda what, row: percent(row[2]["guards"][row[3]][what])),
    }
    return table(columns, rows)


def total(results: Mapping[str, Any], name: str, guard: str) -> dict[str, int]:
    """Sum over seeds the files of a set that a guard drops."""
    summed: Counter[str] = Counter()
    for case in results["cases"]:
        found = case["sets"][name]
        summed.update(found["guards"][guard]["dropped"])
        summed["bad"] += found["poisoned"]
        summed["good"] += found["files"] - found["poisoned"]
    return dict(summed)


def span(results: Mapping[str, Any], name: str, guard: str, what: str) -> str:
    """Format the range of a share over seeds, in percent."""
    values = [
        round(100 * case["sets"][name]["guards"][guard][what]["value"], 1)
        for case in results["cases"]
    ]
    low, high = min(values), max(values)
    return f"{low:g} %" if low == high else f"{low:g}–{high:g} %"


def short(results: Mapping[str, Any]) -> str:
    """Write the main results in words."""
    parts = []
    for name, guard, what, victims in (
        ("copies", "screening", "outsider", "the outsiders' clips are predicted as the target"),
        ("triggers", "backdoor search", "triggered", "clips with the trigger are predicted so"),
        ("triggers", "screening", "triggered", "clips with the trigger are predicted so"),
    ):
        dropped = total(results, name, guard)
        before, after = (span(results, name, g, what) for g in ("nothing", guard))
        parts.append(
            f"*{name.capitalize()}*, {guard}: {dropped['poisoned']} of {dropped['bad']} poisoned "
            f"files dropped and {dropped['clean']} of {dropped['good']} clean ones; {after} of "
            f"{victims}, without a guard {before}."
        )
    nobody = total(results, "clean", "screening")
    accuracy = [span(results, "clean", g, "accuracy") for g in ("nothing", "screening")]
    parts.append(
        f"Where nobody poisoned, screening drops {nobody['clean']} of {nobody['good']} files, and "
        f"accuracy is {accuracy[1]} instead of {accuracy[0]}."
    )
    return " ".join(parts)


def shortcomings(results: Mapping[str, Any]) -> str:
    """Write what each guard misses, from the results."""
    copies, searched = (total(results, "copies", g) for g in ("screening", "backdoor search"))
    by_seed = ", ".join(
        f"{found['guards']['screening']['dropped']['poisoned']} of {found['poisoned']} "
        f"(seed {seed})"
        for shown, seed, found in rows_of(results)
        if shown == "copies"
    )
    heard = sum(
        case["sets"]["copies"]["verdicts"]["poisoned"].get("inconsistent", 0)
        for case in results["cases"]
    )
    nobody = [case["sets"]["clean"] for case in results["cases"]]
    alarms = [f["verdicts"]["clean"].get("adversarial", 0) / f["files"] for f in nobody]
    accused = "; ".join(
        f"seed {case['seed']}, whose target is {case['target']}: "
        + ", ".join(
            f"{' and '.join(case['sets'][name]['accused names']) or 'none'} ({SETS[name]})"
            for name in SETS
        )
        for case in results["cases"]
    )
    attacked = sum(case["attacked"] for case in results["cases"])
    made = sum(case["copies"] for case in results["cases"])
    return (
        "- How many copies screening finds differs much from seed to seed, that is from voice to "
        f"voice; why was not looked into: {by_seed}. The comparison of voices finds {heard} of "
        f"{copies['bad']}: they were made to pass it. The search, which is not made for copies, "
        f"drops {searched['poisoned']} of them. Used were {made} that pass the known model, of "
        f"{attacked} clips attacked.\n"
        f"- At a nominal {100 * results['plan']['fpr']:g} % the detector calls "
        f"{100 * min(alarms):.1f}–{100 * max(alarms):.1f} % of clean files `adversarial`. It was "
        f"calibrated on {results['calibration_clips']} clips of {results['calibration_speakers']} "
        "other speakers; calibrate on more, and on such as will be screened.\n"
        f"- Names that the search accuses, {accused}."
    )


def parts(found: Mapping[str, Any]) -> dict[str, object]:
    """Fill the template."""
    results = found["speechbrain"]
    plan = results["plan"]
    clean = [case["sets"]["clean"]["files"] for case in results["cases"]]
    attack = plan["attack"]
    return {
        "share": f"{100 * plan['share']:g}",
        "split": results["split_sha256"][:12],
        "speakers": plan["speakers"],
        "outsiders": plan["outsiders"],
        "epochs": plan["epochs"],
        "crop": f"{plan['crop_s']:g}",
        "clip_range": "–".join(str(n) for n in sorted({min(clean), max(clean)})),
        "known": plan["known_model"],
        "fpr": f"{plan['fpr']:g}",
        "calibration": results["calibration_clips"],
        "rest": results["calibration_speakers"],
        "seeds": ", ".join(str(seed) for seed in plan["seeds"]),
        "n_seeds": len(plan["seeds"]),
        "trigger": plan["trigger"],
        "attack": f"{attack['method'].upper()} (ε {attack['eps']:g}, {attack['steps']} steps)",
        "nip_audio": results["nip_audio"],
        "torch": results["torch"],
        "searched": "{poisoned} of {bad}".format(**total(results, "triggers", "backdoor search")),
        "searched_clean": "{clean} of {good}".format(
            **total(results, "triggers", "backdoor search")
        ),
        "screened": "{poisoned} of {bad}".format(**total(results, "copies", "screening")),
        "short": short(results),
        "dropped": dropped_table(results),
        "verdicts": verdict_table(results),
        "attacks": attack_table(results),
        "shortcomings": shortcomings(results),
    }


PAGE = Page("speechbrain", __file__, ("speechbrain",), parts)


if __name__ == "__main__":
    PAGE.run()
