"""Write docs/results/nccr.md and its plots: python -m studies.nccr.page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from nip_audio.evaluation.detector_judges import CLEAN_ONLY
from nip_audio.evaluation.paired_auroc import ROC_RATES
from nip_audio.evaluation.tables import NOT_EVALUATED, markdown, share
from studies._lib.numbers import number
from studies._lib.pages import Page
from studies.nccr.detection_study import COMBINE, JOINED_CLEAN, JOINED_COMBINE, MAIN

SYSTEMS = ("audionet", "xvector", "resnet34")
TITLES = {"audionet": "AudioNet", "xvector": "x-vector, enrolled", "resnet34": "ResNet-34"}
PAPER = {
    ("xvector", "fgsm"): (0.9621, 0.9644, 0.7648, 0.9164),
    ("xvector", "pgd"): (0.9659, 0.9427, 0.7513, 0.9026),
    ("xvector", "cw"): (0.9714, 0.9694, 0.8647, 0.9457),
    ("xvector", "fakebob"): (0.9613, 0.9537, 0.9861, 0.9014),
    ("audionet", "fgsm"): (0.9671, 0.9716, 0.7134, 0.8988),
    ("audionet", "pgd"): (0.9646, 0.9968, 0.7652, 0.8859),
    ("audionet", "cw"): (0.9785, 0.9693, 0.6945, 0.9145),
    ("audionet", "fakebob"): (0.9581, 0.9474, 0.9816, 0.8416),
}
"""NCCR's paper, Table 5: NCCR trained on FGSM, on PGD, MEH-FEST, vocoder resynthesis."""

PAPERS = ("fgsm", "pgd", "cw", "fakebob")
STEPS = {"pgd": 10, "cw": 100}
"""Of the cells that stand for the paper's."""

LONG = {"cw": 1000}
"""Steps of further cells, which stand beside them."""

FGSM, PGD = "NCCR, perceptron on FGSM", "NCCR, perceptron on PGD"

CLEAN_JUDGES = (
    *(CLEAN_ONLY, f"{CLEAN_ONLY}, tolerant"),
    *(COMBINE, f"{COMBINE}, tolerant"),
    *(JOINED_CLEAN, JOINED_COMBINE),
)
"""What the tables of clean clips have."""

Results = Mapping[str, Any]


def paper_cell(
    results: Results, attack: str, steps: Mapping[str, int] = STEPS
) -> Mapping[str, Any] | None:
    """The cell at the paper's setting of an attack: ε .002, ten steps of PGD."""
    for cell in results["cells"]:
        if cell["attack"] != attack or cell["eps"] not in (0.002, None):
            continue
        if attack not in steps or cell["settings"].get("steps") == steps[attack]:
            return dict(cell)
    return None


def table_five(all_results: Mapping[str, Results]) -> str:
    """The paper's Table 5 with ours beside it."""
    ours = (CLEAN_ONLY, FGSM, PGD, COMBINE, JOINED_CLEAN, JOINED_COMBINE)
    rows = []
    for system, results in all_results.items():
        cells = [(attack, attack, paper_cell(results, attack)) for attack in PAPERS]
        for attack, steps in LONG.items():
            cells.append((attack, f"{attack}, {steps:,} steps", paper_cell(results, attack, LONG)))
        for attack, title, cell in cells:
            theirs = PAPER.get((system, attack))
            claimed = [f"{v:.4f}" for v in theirs] if theirs else ["–"] * 4
            if cell is None:
                rows.append([TITLES[system], title, NOT_EVALUATED, *claimed, *[NOT_EVALUATED] * 6])
                continue
            judged = [number(cell["judges"][judge]["auroc"]) for judge in ours]
            rows.append([TITLES[system], title, str(cell["examples"]), *claimed, *judged])
    columns = [
        *("system", "attack", "examples", "paper: on FGSM", "on PGD", "MEH-FEST", "resynthesis"),
        *("ours: clean only", "on FGSM", "on PGD", "Combine"),
        *("with MEH-FEST: clean only", "Combine"),
    ]
    return markdown(columns, rows)


def cell_table(results: Results) -> str:
    """Every attack on one system: AUROC and detection."""
    shown = (CLEAN_ONLY, COMBINE, f"{COMBINE}, tolerant", JOINED_CLEAN, JOINED_COMBINE)
    rows = []
    for cell in results["cells"]:
        judges = cell["judges"]
        rows.append(
            [
                name_of(cell),
                f"{cell['examples']} of {cell['attempts']}",
                *(found(judges[judge]) for judge in shown),
                f"{judges['NCCR, one scalar (Sec. 4)']['auroc']['value']:.3f}",
            ]
        )
    columns = ["attack", "fooling", "clean only", "Combine", "Combine, tolerant"]
    joined = ["with MEH-FEST: clean only", "Combine", "one scalar"]
    return markdown([*columns, *joined], rows)


def found(judged: Mapping[str, Any]) -> str:
    """AUROC, and the percentage that is flagged at 5 and 1 % false positives."""
    shares = (100 * judged[f"flagged_at_{rate}"]["value"] for rate in ("0.05", "0.01"))
    return f"{number(judged['auroc'])}; {' / '.join(f'{share:.0f}' for share in shares)}"


def name_of(cell: Mapping[str, Any]) -> str:
    """Attack, strength and, where there are several, steps."""
    steps = f"-{cell['settings']['steps']}" if cell["attack"] in STEPS else ""
    return f"{cell['attack']}{steps}" + ("" if cell["eps"] is None else f" {cell['eps']:g}")


def judge_table(results: Results) -> str:
    """Other ways to judge the same numbers: mean AUROC over all waveform attacks."""
    names = list(results["judges"])
    rows = []
    for name in names:
        values = [cell["judges"][name]["auroc"]["value"] for cell in results["cells"]]
        found = [cell["judges"][name]["flagged_at_0.01"]["value"] for cell in results["cells"]]
        mean, least = sum(values) / len(values), min(values)
        rows.append(
            [
                name,
                results["judges"][name],
                f"{mean:.3f}",
                f"{least:.3f}",
                f"{100 * sum(found) / len(found):.0f}",
            ]
        )
    columns = ["detector", "fitted to", "mean AUROC", "least", "found at 1 %, mean"]
    return markdown(columns, rows)


def left_out_table(all_results: Mapping[str, Results]) -> str:
    """Perceptrons that have seen one family only, on all others."""
    rows = []
    for system, results in all_results.items():
        for name in results["judges"]:
            if not name.startswith("NCCR, perceptron on ") or "tolerant" in name:
                continue
            cells = []
            for attack in PAPERS:
                cell = paper_cell(results, attack)
                cells.append(
                    NOT_EVALUATED if cell is None else number(cell["judges"][name]["auroc"])
                )
            rows.append([TITLES[system], name.removeprefix("NCCR, perceptron on "), *cells])
    return markdown(["system", "trained on", *PAPERS], rows)


def baseline_table(results: Results) -> str:
    """Every baseline on the very same clips."""
    against = results["baselines"]
    if not against:
        return NOT_EVALUATED
    rows = []
    ranked = sorted(against["judges"].items(), key=lambda row: -row[1]["mean"]["value"])
    for name, row in ranked:
        ahead = row["beaten_by"]
        cost = against["costs"].get(name.removesuffix(", as published").removesuffix(", two-sided"))
        passes = f"{results['passes']:g}" if cost is None else f"{cost['passes']:g}"
        seconds = results["seconds"] if cost is None else cost["seconds"]
        rows.append(
            [
                name,
                *(f"{cell['value']:.3f}" for cell in row["cells"]),
                number(row["mean"]),
                *(number(ahead[ours]) if ours in ahead else "–" for ours in (CLEAN_ONLY, COMBINE)),
                passes,
                f"{1000 * seconds:.0f}",
            ]
        )
    columns = ["detector", *against["cells"], "mean", "clean only ahead by", "Combine ahead by"]
    return markdown([*columns, "passes", "ms a clip"], rows)


def false_positive_table(all_results: Mapping[str, Results]) -> str:
    """Clean clips that are flagged."""
    rows = []
    for system, results in all_results.items():
        for group, found in results["false_positives"].items():
            for name in CLEAN_JUDGES:
                rates = found["judges"][name]
                cells = [share(rates["at_0.05"]), share(rates["at_0.01"])]
                rows.append([TITLES[system], group, str(found["clips"]), name, *cells])
    return markdown(["system", "voices", "clips", "detector", "at 5 %", "at 1 %"], rows)


def control_table(results: Results) -> str:
    """Harmless changes that are flagged at 1 %."""
    rows = [
        [
            row["control"],
            str(row["clips"]),
            *(share(row["judges"][name]["at_0.01"]) for name in CLEAN_JUDGES),
        ]
        for row in results["controls"]
    ]
    return markdown(["change", "clips", *(n.removeprefix("NCCR, ") for n in CLEAN_JUDGES)], rows)


def adaptive_table(all_results: Mapping[str, Results]) -> str:
    """Attackers who know model and detector."""
    rows = []
    for system, results in all_results.items():
        for row in results.get("adaptive", ()):
            flagged = row["flagged"]
            cells = (
                ["–", "–"]
                if flagged is None
                else [
                    share(flagged["at_0.05"]),
                    share(flagged["at_0.01"]),
                ]
            )
            attempts = str(row["attempts"])
            eps = f"{row['attack']['eps']:g}"
            rows.append(
                [TITLES[system], row["judge"], eps, attempts, share(row["success"]), *cells]
            )
    if not rows:
        return NOT_EVALUATED
    columns = [
        "system",
        "detector",
        "ε",
        "attempts",
        "prediction changed",
        "of these flagged at 5 %",
    ]
    return markdown([*columns, "at 1 %"], rows)


def aim_table(all_results: Mapping[str, Results]) -> str:
    """What was aimed at, and what the main detectors reach."""
    rows = []
    for system, results in all_results.items():
        for judge in MAIN:
            rows.append([TITLES[system], judge.removeprefix("NCCR, "), *_reached(results, judge)])
    columns = [
        "system",
        "detector",
        "the paper's four: least AUROC (aim .99)",
        "found at 1 %, mean (95)",
        "PGD-100 up to ε .01: least AUROC (.95)",
        "PGD, ε .0002 and .0005: least (.98)",
        "flagged clean at 1 % (1)",
        "harmless changes over 5 %",
        "best baseline, mean AUROC",
        "ahead of it by",
    ]
    return markdown(columns, rows)


def _reached(results: Results, judge: str) -> list[str]:
    cells = results["cells"]
    four = [c for c in (paper_cell(results, attack) for attack in PAPERS) if c is not None]
    strong = [c for c in cells if c["settings"].get("steps") == 100 and c["attack"] == "pgd"]
    faint = [c for c in cells if c["attack"] == "pgd" and c["eps"] in (0.0002, 0.0005)]
    shares = [c["judges"][judge]["flagged_at_0.01"]["value"] for c in four]
    own = results["false_positives"]["own voices"]["judges"][judge]["at_0.01"]
    over = [
        row["control"]
        for row in results["controls"]
        if row["judges"][judge]["at_0.01"]["value"] > 0.05
    ]
    return [
        _least(four, judge),
        f"{100 * sum(shares) / len(shares):.0f}",
        _least(strong, judge),
        _least(faint, judge),
        share(own),
        ", ".join(over) or "none",
        *_lead(results, judge),
    ]


def _least(cells: Sequence[Mapping[str, Any]], judge: str) -> str:
    if not cells:
        return NOT_EVALUATED
    worst = min(cells, key=lambda cell: cell["judges"][judge]["auroc"]["value"])
    return f"{worst['judges'][judge]['auroc']['value']:.3f} ({name_of(worst)})"


def _lead(results: Results, judge: str) -> tuple[str, str]:
    against = results["baselines"]
    if not against:
        return NOT_EVALUATED, NOT_EVALUATED
    others = {n: row for n, row in against["judges"].items() if not n.startswith("NCCR")}
    name, row = max(others.items(), key=lambda item: item[1]["mean"]["value"])
    return f"{name}: {row['mean']['value']:.3f}", number(row["beaten_by"][judge])


def draw_curves(all_results: Mapping[str, Results], stem: Path) -> Path:
    """ROC curves at the paper's settings, one panel a system and detector."""
    figure = Figure(figsize=(3.4 * len(all_results), 6.2), layout="constrained")
    axes = figure.subplots(2, len(all_results), squeeze=False, sharey=True)
    for column, (system, results) in enumerate(all_results.items()):
        for row, judge in enumerate((CLEAN_ONLY, COMBINE)):
            axis = axes[row][column]
            for attack in PAPERS:
                cell = paper_cell(results, attack)
                if cell is not None:
                    axis.plot(ROC_RATES, cell["roc"][judge], marker=".", lw=1, label=attack)
            axis.plot(ROC_RATES, ROC_RATES, color="grey", lw=0.5)
            axis.set_xscale("log")
            axis.set_title(f"{TITLES[system]}: {judge.removeprefix('NCCR, ')}", fontsize=8)
            axis.tick_params(labelsize=7)
            axis.grid(alpha=0.3)
            axis.legend(fontsize=6)
    axes[1][0].set_xlabel("clean clips flagged", fontsize=8)
    axes[0][0].set_ylabel("attacked clips flagged", fontsize=8)
    return _saved(figure, stem)


def draw_strengths(all_results: Mapping[str, Results], stem: Path) -> Path:
    """AUROC against ε."""
    figure = Figure(figsize=(3.4 * len(all_results), 3.2), layout="constrained")
    axes = figure.subplots(1, len(all_results), squeeze=False, sharey=True)[0]
    for axis, (system, results) in zip(axes, all_results.items(), strict=True):
        lines: dict[tuple[str, str], list[tuple[float, Mapping[str, float]]]] = {}
        for cell in results["cells"]:
            if cell["attack"] not in ("fgsm", "pgd"):
                continue
            name = name_of(cell).split()[0]
            for judge in (CLEAN_ONLY, COMBINE):
                found = cell["judges"][judge]["auroc"]
                lines.setdefault((name, judge), []).append((cell["eps"], found))
        for (name, judge), points in sorted(lines.items()):
            points.sort(key=lambda point: point[0])
            axis.plot(
                [eps for eps, _ in points],
                [value["value"] for _, value in points],
                marker="o",
                ms=3,
                lw=1,
                ls="-" if judge == CLEAN_ONLY else "--",
                label=f"{name}, {judge.removeprefix('NCCR, ')}",
            )
        axis.set_xscale("log")
        axis.set_title(TITLES[system], fontsize=9)
        axis.set_xlabel("ε", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=5)
    axes[0].set_ylabel("AUROC", fontsize=8)
    return _saved(figure, stem)


def _saved(figure: Figure, stem: Path) -> Path:
    stem.parent.mkdir(parents=True, exist_ok=True)
    path = stem.with_suffix(".png")
    figure.savefig(path, dpi=110)
    return path


def by_system(results: Results) -> dict[str, Results]:
    """Results of each system."""
    return {system: results[f"nccr_{system}"] for system in SYSTEMS}


def parts(results: Results) -> dict[str, object]:
    """Fill the template."""
    all_results = by_system(results)
    per_system = []
    for system, results in all_results.items():
        cost = results["seconds"]
        length = results["crop_s"]
        per_system.append(
            f"### {TITLES[system]}\n\n"
            f"Clips of {length:g} s; {results['calibrate']} of `calibrate`, {results['clean']} of "
            f"`test`, of which {100 * results['named_rightly']:.1f} % are classified correctly. "
            f"{results['passes']:g} forward passes and {1000 * cost:.0f} ms of processor time a "
            f"clip: {1000 * cost / length:.0f} ms a second of audio.\n\n"
            f"{cell_table(results)}\n\nOther ways to judge, over all of these attacks:\n\n"
            f"{judge_table(results)}\n\nAgainst the baselines, on the same clips "
            f"({' / '.join(map(str, results['baselines'].get('examples', [])))} attacked, "
            f"{results['baselines'].get('clean', 0)} clean):\n\n{baseline_table(results)}\n\n"
            f"Harmless changes flagged, percent, at 1 %:\n\n{control_table(results)}"
        )
    return {
        "table_five": table_five(all_results),
        "left_out": left_out_table(all_results),
        "false_positives": false_positive_table(all_results),
        "adaptive": adaptive_table(all_results),
        "aims": aim_table(all_results),
        "systems": "\n\n".join(per_system),
        **{f"found_{s}": _reached(r, COMBINE)[1] for s, r in all_results.items()},
        **{
            f"least_{s}": _reached(r, JOINED_COMBINE if s == "audionet" else COMBINE)[0].split()[0]
            for s, r in all_results.items()
        },
        "roc": "pictures/nccr_roc.png",
        "strength": "pictures/nccr_strength.png",
    }


def draw(results: Results, folder: Path) -> None:
    """Draw the curves."""
    draw_curves(by_system(results), folder / "pictures" / "nccr_roc")
    draw_strengths(by_system(results), folder / "pictures" / "nccr_strength")


PAGE = Page("nccr", __file__, ("nccr_audionet", "nccr_xvector", "nccr_resnet34"), parts, draw)


if __name__ == "__main__":
    PAGE.run()
