"""Write docs/results/nccr.md and its plots: python -m studies.nccr.page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from nip_audio.evaluation.detector_judges import CLEAN_ONLY, OWN_SCORE
from nip_audio.evaluation.paired_auroc import ROC_RATES
from studies._lib.numbers import NOT_EVALUATED, number, percent
from studies._lib.pages import Page
from studies._lib.records import read_record
from studies._lib.tables import Columns, each, table
from studies.nccr.detection_study import (
    COMBINE,
    JOINED_CLEAN,
    JOINED_COMBINE,
    L0_SCALAR,
    L2_SCALAR,
    MAIN,
    PUBLISHED,
)
from studies.nccr.results import Compared, Cost, DetectionCell, DetectionResults, Judged

SYSTEMS = ("audionet", "xvector", "resnet34")
TITLES = {
    "audionet": "AudioNet",
    "xvector": "x-vector, cosine",
    "xvector_plda": "x-vector, PLDA",
    "resnet34": "ResNet-34",
}
TO_MEASURE = ("xvector_plda",)
"""Systems of the plan without results yet; the paper's Table 5 has them."""
PAPER = {
    ("xvector_plda", "fgsm"): (0.9621, 0.9644, 0.7648, 0.9164),
    ("xvector_plda", "pgd"): (0.9659, 0.9427, 0.7513, 0.9026),
    ("xvector_plda", "cw"): (0.9714, 0.9694, 0.8647, 0.9457),
    ("xvector_plda", "fakebob"): (0.9613, 0.9537, 0.9861, 0.9014),
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

_TRAINED = "perceptron on "
FGSM, PGD = (f"NCCR and decision, {_TRAINED}{family}" for family in ("FGSM", "PGD"))

CLEAN_JUDGES = (
    *(CLEAN_ONLY, f"{CLEAN_ONLY}, tolerant"),
    *(COMBINE, f"{COMBINE}, tolerant"),
    *(JOINED_CLEAN, JOINED_COMBINE),
)
"""What the tables of clean clips have."""

RATES = {"0.05": "at 5 %", "0.01": "at 1 %"}

All = Mapping[str, DetectionResults]
"""Results by system."""


class Row(NamedTuple):
    """A row of a table of all systems: the system, what the row is of, and what it shows."""

    system: str
    what: str
    found: Any


SYSTEM: Columns = {"system": lambda row: TITLES[row.system]}


def paper_cell(
    results: DetectionResults, attack: str, steps: Mapping[str, int] = STEPS
) -> DetectionCell | None:
    """The cell at the paper's setting of an attack: ε .002, ten steps of PGD."""
    for cell in results.cells:
        if cell.attack != attack or cell.eps not in (0.002, None):
            continue
        if attack not in steps or cell.settings.get("steps") == steps[attack]:
            return cell
    return None


def auroc_of(judge: str, cell: DetectionCell | None) -> str:
    """AUROC of a detector in a cell; either may be missing."""
    found = None if cell is None else cell.judges.get(judge)
    return number(None if found is None else found.auroc)


def bare(judge: str) -> str:
    """A detector's name without the method's."""
    return judge.removeprefix("NCCR and decision, ")


def table_five(all_results: All) -> str:
    """The paper's Table 5 with ours beside it."""
    rows = []
    for system, results in all_results.items():
        rows += [Row(system, a, (a, paper_cell(results, a))) for a in PAPERS]
        rows += [
            Row(system, f"{a}, {steps:,} steps", (a, paper_cell(results, a, LONG)))
            for a, steps in LONG.items()
        ]
    rows += [Row(system, attack, (attack, None)) for system in TO_MEASURE for attack in PAPERS]

    def theirs(place: int, row: Row) -> str:
        claimed = PAPER.get((row.system, row.found[0]))
        return f"{claimed[place]:.4f}" if claimed else "–"

    neurons = {f"NCCR, {_TRAINED}{family}": family for family in ("FGSM", "PGD")}
    ours = {
        **{judge: f"NCCR here: on {family}" for judge, family in neurons.items()},
        PUBLISHED: "NCCR here: Combine",
        **{CLEAN_ONLY: "with decision: clean only", FGSM: " on FGSM", PGD: " on PGD"},
        **{
            COMBINE: "Combine",
            JOINED_CLEAN: "and MEH-FEST: clean only",
            JOINED_COMBINE: " Combine",
        },
    }
    columns: Columns = {
        **SYSTEM,
        "attack": lambda row: row.what,
        "examples": lambda row: row.found[1].examples if row.found[1] else NOT_EVALUATED,
        **each(dict(enumerate(("paper: on FGSM", "on PGD", "MEH-FEST", "neural vocoder"))), theirs),
        **each(ours, lambda judge, row: auroc_of(judge, row.found[1])),
    }
    return table(columns, rows)


def cell_table(results: DetectionResults) -> str:
    """Every attack on one system: AUROC and detection."""
    judges = {
        **{
            CLEAN_ONLY: "clean only",
            COMBINE: "Combine",
            f"{COMBINE}, tolerant": "Combine, tolerant",
        },
        **{JOINED_CLEAN: "with MEH-FEST: clean only", JOINED_COMBINE: " Combine"},
    }
    columns: Columns = {
        "attack": name_of,
        "fooling": lambda cell: f"{cell.examples} of {cell.attempts}",
        **each(judges, lambda judge, cell: shown(cell.judges[judge])),
        **each(
            {PUBLISHED: "NCCR alone: Combine", L2_SCALAR: "l2 scalar", L0_SCALAR: "l0 scalar"},
            lambda judge, cell: auroc_of(judge, cell).split(" [")[0],
        ),
    }
    return table(columns, results.cells)


def shown(judged: Judged) -> str:
    """AUROC, and the percentage that is flagged at 5 and 1 % false positives."""
    found = " / ".join(f"{100 * judged.flagged[rate].value:.0f}" for rate in ("0.05", "0.01"))
    return f"{number(judged.auroc)}; {found}"


def name_of(cell: DetectionCell) -> str:
    """Attack, strength and, where there are several, steps."""
    steps = f"-{cell.settings['steps']}" if cell.attack in STEPS else ""
    return f"{cell.attack}{steps}" + ("" if cell.eps is None else f" {cell.eps:g}")


def mean(values: Sequence[float]) -> float:
    """Mean of some numbers."""
    return sum(values) / len(values)


def judge_table(results: DetectionResults) -> str:
    """Other ways to judge the same numbers: mean AUROC over all waveform attacks."""

    def areas(judge: str) -> list[float]:
        return [cell.judges[judge].auroc.value for cell in results.cells]

    def found(judge: str) -> list[float]:
        return [cell.judges[judge].flagged["0.01"].value for cell in results.cells]

    columns: Columns = {
        "detector": str,
        "fitted to": lambda judge: results.judges[judge],
        "mean AUROC": lambda judge: f"{mean(areas(judge)):.3f}",
        "least": lambda judge: f"{min(areas(judge)):.3f}",
        "found at 1 %, mean": lambda judge: f"{100 * mean(found(judge)):.0f}",
    }
    return table(columns, results.judges)


def left_out_table(all_results: All) -> str:
    """Perceptrons that have seen one family only, on all others."""
    rows = [
        Row(system, judge, results)
        for system, results in all_results.items()
        for judge in results.judges
        if judge.startswith("NCCR") and _TRAINED in judge and "tolerant" not in judge
    ]

    columns: Columns = {
        **SYSTEM,
        "detector": lambda row: row.what,
        **each(PAPERS, lambda a, row: auroc_of(row.what, paper_cell(row.found, a))),
    }
    return table(columns, rows)


def baseline_table(results: DetectionResults) -> str:
    """Every baseline on the very same clips."""
    against = results.baselines
    if against is None:
        return NOT_EVALUATED

    own = Cost(results.passes, results.seconds)

    def cost(name: str) -> Cost:
        return against.costs.get(
            name.removesuffix(", as published")
            .removesuffix(f", {OWN_SCORE}")
            .removesuffix(", two-sided"),
            own,
        )

    def ahead(judge: str, row: tuple[str, Compared]) -> str:
        return number(row[1].beaten_by[judge]) if judge in row[1].beaten_by else "–"

    columns: Columns = {
        "detector": lambda row: row[0],
        **each(dict(enumerate(against.cells)), lambda i, row: f"{row[1].cells[i].value:.3f}"),
        "mean": lambda row: number(row[1].mean),
        **each({CLEAN_ONLY: "clean only ahead by", COMBINE: "Combine ahead by"}, ahead),
        "passes": lambda row: f"{cost(row[0]).passes:g}",
        "ms a clip": lambda row: f"{1000 * (cost(row[0]).seconds or 0.0):.0f}",
    }
    return table(columns, sorted(against.judges.items(), key=lambda row: -_mean_of(row[1])))


def false_positive_table(all_results: All) -> str:
    """Clean clips that are flagged."""
    rows = [
        Row(system, judge, (voices, group))
        for system, results in all_results.items()
        for voices, group in results.false_positives.items()
        for judge in CLEAN_JUDGES
    ]
    columns: Columns = {
        **SYSTEM,
        "voices": lambda row: row.found[0],
        "clips": lambda row: row.found[1].clips,
        "detector": lambda row: row.what,
        **each(RATES, lambda rate, row: percent(row.found[1].judges[row.what][rate])),
    }
    return table(columns, rows)


def control_table(results: DetectionResults) -> str:
    """Harmless changes that are flagged at 1 %."""
    columns: Columns = {
        "change": lambda row: row.control,
        "clips": lambda row: row.clips,
        **each(
            {judge: bare(judge) for judge in CLEAN_JUDGES},
            lambda judge, row: percent(row.judges[judge]["0.01"]),
        ),
    }
    return table(columns, results.controls)


def adaptive_table(all_results: All) -> str:
    """Attackers who know model and detector."""
    rows = [
        Row(system, row.judge, row)
        for system, results in all_results.items()
        for row in results.adaptive
    ]

    def flagged(rate: str, row: Row) -> str:
        return "–" if row.found.flagged is None else percent(row.found.flagged[rate])

    columns: Columns = {
        **SYSTEM,
        "detector": lambda row: row.what,
        "ε": lambda row: f"{row.found.attack['eps']:g}",
        "attempts": lambda row: row.found.attempts,
        "prediction changed": lambda row: percent(row.found.success),
        **each({"0.05": "of these flagged at 5 %", "0.01": "at 1 %"}, flagged),
    }
    return table(columns, rows) if rows else NOT_EVALUATED


def four(results: DetectionResults) -> list[DetectionCell]:
    """The paper's four attacks."""
    cells = (paper_cell(results, attack) for attack in PAPERS)
    return [cell for cell in cells if cell is not None]


def found_by(results: DetectionResults, judge: str) -> str:
    """Mean percentage of the paper's four attacks that is flagged at 1 %."""
    shares = [cell.judges[judge].flagged["0.01"].value for cell in four(results)]
    return f"{100 * mean(shares):.0f}"


def aim_table(all_results: All) -> str:
    """What was aimed at, and what the main detectors reach."""
    rows = [Row(system, j, results) for system, results in all_results.items() for j in MAIN]

    def pgd(row: Row, *, steps: int = 0, eps: Sequence[float] = ()) -> str:
        cells = [cell for cell in row.found.cells if cell.attack == "pgd"]
        return least([c for c in cells if c.settings["steps"] == steps or c.eps in eps], row.what)

    def over(row: Row) -> str:
        controls = row.found.controls
        names = [c.control for c in controls if c.judges[row.what]["0.01"].value > 0.05]
        return ", ".join(names) or "none"

    def own(row: Row) -> str:
        return percent(row.found.false_positives["own voices"].judges[row.what]["0.01"])

    columns: Columns = {
        **SYSTEM,
        "detector": lambda row: bare(row.what),
        "the paper's four: least AUROC (aim .99)": lambda row: least(four(row.found), row.what),
        "found at 1 %, mean (95)": lambda row: found_by(row.found, row.what),
        "PGD-100 up to ε .01: least AUROC (.95)": partial(pgd, steps=100),
        "PGD, ε .0002 and .0005: least (.98)": partial(pgd, eps=(0.0002, 0.0005)),
        "flagged clean at 1 % (1)": own,
        "harmless changes over 5 %": over,
        "best baseline, mean AUROC": lambda row: best_baseline(row.found, row.what)[0],
        "ahead of it by": lambda row: best_baseline(row.found, row.what)[1],
    }
    return table(columns, rows)


def least(cells: Sequence[DetectionCell], judge: str) -> str:
    """The least AUROC of a detector, and where."""
    if not cells:
        return NOT_EVALUATED
    worst = min(cells, key=lambda cell: cell.judges[judge].auroc.value)
    return f"{worst.judges[judge].auroc.value:.3f} ({name_of(worst)})"


def best_baseline(results: DetectionResults, judge: str) -> tuple[str, str]:
    """The best baseline with its mean AUROC, and how far a detector is ahead of it."""
    if results.baselines is None:
        return NOT_EVALUATED, NOT_EVALUATED
    others = [item for item in results.baselines.judges.items() if not item[0].startswith("NCCR")]
    name, row = max(others, key=lambda item: _mean_of(item[1]))
    return f"{name}: {_mean_of(row):.3f}", number(row.beaten_by[judge])


def _mean_of(row: Compared) -> float:
    return float("nan") if row.mean is None else row.mean.value


def draw_curves(all_results: All, stem: Path) -> Path:
    """ROC curves at the paper's settings, one panel a system and detector."""
    figure = Figure(figsize=(3.4 * len(all_results), 6.2), layout="constrained")
    axes = figure.subplots(2, len(all_results), squeeze=False, sharey=True)
    for column, (system, results) in enumerate(all_results.items()):
        for row, judge in enumerate((CLEAN_ONLY, COMBINE)):
            axis = axes[row][column]
            for attack in PAPERS:
                cell = paper_cell(results, attack)
                if cell is not None:
                    axis.plot(ROC_RATES, cell.roc[judge], marker=".", lw=1, label=attack)
            axis.plot(ROC_RATES, ROC_RATES, color="grey", lw=0.5)
            axis.set_xscale("log")
            axis.set_title(f"{TITLES[system]}: {bare(judge)}", fontsize=8)
            axis.tick_params(labelsize=7)
            axis.grid(alpha=0.3)
            axis.legend(fontsize=6)
    axes[1][0].set_xlabel("clean clips flagged", fontsize=8)
    axes[0][0].set_ylabel("attacked clips flagged", fontsize=8)
    return _saved(figure, stem)


def draw_strengths(all_results: All, stem: Path) -> Path:
    """AUROC against ε."""
    figure = Figure(figsize=(3.4 * len(all_results), 3.2), layout="constrained")
    axes = figure.subplots(1, len(all_results), squeeze=False, sharey=True)[0]
    for axis, (system, results) in zip(axes, all_results.items(), strict=True):
        lines: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for cell in results.cells:
            if cell.attack not in ("fgsm", "pgd") or cell.eps is None:
                continue
            name = name_of(cell).split()[0]
            for judge in (CLEAN_ONLY, COMBINE):
                area = cell.judges[judge].auroc.value
                lines.setdefault((name, judge), []).append((cell.eps, area))
        for (name, judge), points in sorted(lines.items()):
            axis.plot(
                *zip(*sorted(points, key=lambda point: point[0]), strict=True),
                marker="o",
                ms=3,
                lw=1,
                ls="-" if judge == CLEAN_ONLY else "--",
                label=f"{name}, {bare(judge)}",
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


def by_system(found: Mapping[str, Any]) -> All:
    """Results of each system."""
    return {s: read_record(DetectionResults, found[f"nccr_{s}"]) for s in SYSTEMS}


def system_part(system: str, results: DetectionResults) -> str:
    """All tables of one system."""
    cost, length, against = results.seconds or 0.0, results.about["crop_s"], results.baselines
    examples = " / ".join(map(str, against.examples)) if against else ""
    return (
        f"### {TITLES[system]}\n\n"
        f"Clips of {length:g} s; {results.calibrate} of `calibrate`, {results.clean} of "
        f"`test`, of which {100 * results.accuracy:.1f} % are classified correctly. "
        f"{results.passes:g} forward passes and {1000 * cost:.0f} ms of processor time a "
        f"clip: {1000 * cost / length:.0f} ms a second of audio.\n\n"
        f"{cell_table(results)}\n\nOther ways to judge, over all of these attacks:\n\n"
        f"{judge_table(results)}\n\nAgainst the baselines, on the same clips ({examples} attacked, "
        f"{against.clean if against else 0} clean):\n\n{baseline_table(results)}\n\n"
        f"Harmless changes flagged, percent, at 1 %:\n\n{control_table(results)}"
    )


def parts(found: Mapping[str, Any]) -> dict[str, object]:
    """Fill the template."""
    all_results = by_system(found)
    joined = {"audionet": JOINED_COMBINE}
    return {
        "table_five": table_five(all_results),
        "left_out": left_out_table(all_results),
        "false_positives": false_positive_table(all_results),
        "adaptive": adaptive_table(all_results),
        "aims": aim_table(all_results),
        "systems": "\n\n".join(system_part(*one) for one in all_results.items()),
        **{f"found_{s}": found_by(r, COMBINE) for s, r in all_results.items()},
        **{
            f"least_{s}": least(four(r), joined.get(s, COMBINE)).split()[0]
            for s, r in all_results.items()
        },
        "roc": "plots/nccr_roc.png",
        "strength": "plots/nccr_strength.png",
    }


def draw(found: Mapping[str, Any], folder: Path) -> None:
    """Draw the curves."""
    draw_curves(by_system(found), folder / "plots" / "nccr_roc")
    draw_strengths(by_system(found), folder / "plots" / "nccr_strength")


PAGE = Page("nccr", __file__, ("nccr_audionet", "nccr_xvector", "nccr_resnet34"), parts, draw)


if __name__ == "__main__":
    PAGE.run()
