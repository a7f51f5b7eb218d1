"""Write docs/results/images.md: python -m studies.images.page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nip_audio.core.metrics import Interval
from nip_audio.evaluation.detector_judges import CLEAN_ONLY
from nip_audio.evaluation.statistics import MIN_SUCCESSES
from nip_audio.evaluation.tables import BACKDOOR_COLUMNS, backdoor_cells
from nip_audio.models.cards import ModelCard, list_pretrained
from nip_audio.purifiers.noise import MATCHED
from studies._lib.numbers import NOT_EVALUATED, number, percent
from studies._lib.pages import Page
from studies._lib.records import read_record
from studies._lib.shares import share_of
from studies._lib.tables import Columns, each, table
from studies.backdoors.models import NO_TRIGGER
from studies.images.comparisons import (
    SET,
    SETS,
    Row,
    chance,
    overlap,
    paired,
    smallest,
    times,
)
from studies.images.detection import COMBINE, PUBLISHED, on_family
from studies.images.purification import GUIDED, ORACLE
from studies.images.results import (
    AdaptiveCell,
    DefenceResults,
    DefendedCell,
    Detected,
    ImageResults,
    RemoteResults,
)
from studies.nccr.results import DetectionCell

FAMILIES = ("FGSM", "PGD", "JSMA", "Combine")
PAPER: Mapping[tuple[str, str], tuple[tuple[float, ...], tuple[float, ...]]] = {
    ("mnist", "fgsm"): ((0.9943, 0.9949, 0.9229, 0.9935), (0.9617, 0.9883)),
    ("mnist", "pgd"): ((0.9926, 0.9973, 0.9131, 0.9926), (0.9531, 0.9783)),
    ("mnist", "jsma"): ((0.9217, 0.9171, 0.9537, 0.9164), (0.9941, 0.9984)),
    ("mnist", "cw"): ((0.9950, 0.9932, 0.9558, 0.9807), (0.9576, 0.9870)),
    ("mnist", "deepfool"): ((0.9983, 0.9964, 0.9672, 0.9851), (0.9817, 0.9971)),
    ("cifar10", "fgsm"): ((0.9974, 0.9951, 0.9643, 0.9899), (0.8617, 0.8998)),
    ("cifar10", "pgd"): ((0.9906, 0.9916, 0.9612, 0.9891), (0.8741, 0.9014)),
    ("cifar10", "jsma"): ((0.8931, 0.9002, 0.9415, 0.9103), (0.9682, 0.9890)),
    ("cifar10", "cw"): ((0.9989, 0.9987, 0.9843, 0.9964), (0.9063, 0.9176)),
    ("cifar10", "deepfool"): ((0.9971, 0.9883, 0.9801, 0.9904), (0.9614, 0.9902)),
}
"""NCCR, Table 3 (Env1): NCCR on FGSM, PGD, JSMA, Combine; baselines mutation and attack cost."""

SLACK = 0.005
JSMA_GOAL = 0.98
BACKDOORS: Mapping[tuple[str, str], tuple[float, float, float]] = {
    ("cifar10", "BadNets"): (0.9994, 0.9915, 0.9884),
    ("cifar10", "Blended"): (0.9995, 0.9874, 0.7416),
    ("cifar10", "SIG"): (0.9989, 0.9867, 0.6451),
    ("cifar10", "ReFool, simplified"): (0.9986, 0.9833, 0.6846),
    ("gtsrb", "BadNets"): (0.9998, 0.9991, 0.9798),
    ("gtsrb", "Blended"): (0.9996, 0.9982, 0.7064),
    ("gtsrb", "SIG"): (0.9994, 0.9978, 0.6291),
    ("gtsrb", "ReFool, simplified"): (0.9993, 0.9986, 0.6487),
}
"""NCCR, Table 6: NCCR, activation clustering, STRIP."""


RATES = {"0.05": "at 5 %", "0.01": "at 1 %"}
F1 = {
    "NCCR, grouped": "ours, by name: F1",
    "changes, grouped": "changes alone",
    "activations, grouped": "outputs alone",
    "NCCR, published": "NCCR, two clusters",
    "activation clustering, silhouette": "AC",
    "activation clustering, reclassification": "AC, reclassification",
    "activation clustering, silhouette-scores": "AC, ART's silhouette",
    "activation clustering, told label and cluster": "AC, told where",
    "STRIP": "STRIP",
    "STRIP, ART's entropy": "STRIP, ART's entropy",
}


def models() -> str:
    """Accuracy of the shipped models, as their cards have it."""

    def accuracy(condition: str, card: ModelCard) -> str:
        metrics = card.data["metrics"]
        tested = metrics["test"]
        right = np.arange(tested) < round(metrics[condition] * tested)
        return percent(share_of(right, ["one"] * tested, seed=0))

    conditions = {"clean": "clean, %", "noise_0.05": "noise .05, %", "noise_0.1": "noise .1, %"}
    columns: Columns = {
        "model": lambda card: card.name,
        "trained on": lambda card: card.data["training"]["data"],
        "parameters": lambda card: card.data["parameters"],
        "test images": lambda card: card.data["metrics"]["test"],
        **each(conditions, accuracy),
    }
    return table(columns, (card for card in list_pretrained() if card.modality == "image"))


def cell_of(results: ImageResults, name: str, attack: str) -> DetectionCell | None:
    """The measured cell of an attack at the paper's strength, which is the first."""
    study = results.detection.get(name)
    found = [c for c in study.cells if c.name.split()[0] == attack and c.examples] if study else []
    return found[0] if found else None


def of_paper(results: ImageResults) -> list[Row]:
    """The attacks of the paper's Table 3."""
    return [Row(name, attack, cell_of(results, name, attack)) for name, attack in PAPER]


def auroc_of(judge: str, cell: DetectionCell | None, *, digits: int = 3) -> str:
    """AUROC of a detector in a cell; either may be missing."""
    found = None if cell is None else cell.judges.get(judge)
    return number(None if found is None else found.auroc, digits)


def lead(row: Row) -> float | None:
    """How far the Combine detector is above its goal."""
    return None if row.found is None else row.found.judges[COMBINE].auroc.value - goal(row)


def goal(row: Row) -> float:
    """The paper's best of the row, less .005."""
    return JSMA_GOAL if row.what == "jsma" else max(PAPER[row.name, row.what][0]) - SLACK


def goals(results: ImageResults) -> str:
    """The Combine detector against its goals."""

    def verdict(row: Row) -> str:
        ahead = lead(row)
        if ahead is None:
            return "–"
        return "met" if ahead >= 0 else f"missed by {-ahead:.3f}"

    columns: Columns = {
        **SET,
        "attack": lambda row: row.what,
        "goal": lambda row: f"{goal(row):.4f}",
        **each(
            {
                PUBLISHED: "NCCR alone, Combine",
                COMBINE: "with decision, Combine",
                CLEAN_ONLY: "clean only",
            },
            lambda judge, row: auroc_of(judge, row.found),
        ),
        "goal of Combine": verdict,
    }
    return table(columns, of_paper(results))


def met(results: ImageResults) -> str:
    """Return how many goals of the Combine detector are met."""
    leads = [lead(row) for row in of_paper(results)]
    return f"{sum(ahead is not None and ahead >= 0 for ahead in leads)} of {len(leads)}"


def table_three(results: ImageResults) -> str:
    """The paper's Table 3 with ours beside it."""
    alone = {on_family(family, decision=False): f"NCCR here: {family}" for family in FAMILIES}
    decision = {on_family(family): f"with decision: {family}" for family in FAMILIES}
    columns: Columns = {
        **SET,
        "attack": lambda row: row.what,
        **each(
            {place: f"paper: {family}" for place, family in enumerate(FAMILIES)},
            lambda place, row: f"{PAPER[row.name, row.what][0][place]:.4f}",
        ),
        "paper: best baseline": lambda row: f"{max(PAPER[row.name, row.what][1]):.4f}",
        **each(
            alone | decision | {CLEAN_ONLY: "with decision: clean only"},
            lambda judge, row: auroc_of(judge, row.found, digits=4).split(" [")[0],
        ),
    }
    return table(columns, of_paper(results))


def detection(results: ImageResults, name: str) -> str:
    """Every attack on one set."""

    def shown(write: Callable[[DetectionCell], str]) -> Callable[[DetectionCell], str]:
        return lambda cell: write(cell) if cell.examples else "–"

    def found(cell: DetectionCell) -> str:
        return " / ".join(percent(cell.judges[COMBINE].flagged[rate]) for rate in RATES)

    against = "Combine, against correctly classified"
    columns: Columns = {
        "attack": lambda cell: cell.name,
        "fooling": lambda cell: f"{cell.examples} of {cell.attempts}",
        "median L2": shown(lambda cell: f"{cell.median_l2:.2f}"),
        "median changed, %": shown(lambda cell: f"{100 * (cell.median_changed or 0):.1f}"),
        **each(
            {
                **{f"NCCR, {norm} scalar": f"{norm} scalar" for norm in ("l2", "l0")},
                **{PUBLISHED: "NCCR alone, Combine", CLEAN_ONLY: "clean only", COMBINE: "Combine"},
            },
            lambda judge, cell: auroc_of(judge, cell) if cell.examples else "–",
        ),
        against: shown(lambda cell: number(cell.judges[COMBINE].auroc_against_correct)),
        "Combine finds at 5 / 1 %, %": shown(found),
    }
    study = results.detection.get(name)
    return NOT_EVALUATED if study is None else table(columns, study.cells)


def false_positives(results: ImageResults) -> str:
    """Clean images that are flagged."""
    rows = [
        Row(name, judge, group)
        for name, study in results.detection.items()
        for group in study.false_positives.values()
        for judge in (CLEAN_ONLY, COMBINE)
    ]
    columns: Columns = {
        **SET,
        "clean images": lambda row: row.found.clips,
        "detector": lambda row: row.what,
        **each(RATES, lambda rate, row: percent(row.found.judges[row.what][rate])),
    }
    return table(columns, rows)


def baselines(results: ImageResults) -> str:
    """All detectors on the same images."""
    tables = []
    for name, study in results.detection.items():
        found = study.baselines
        if found is None:
            continue
        counts = [f"{c} ({n})" for c, n in zip(found.cells, found.examples, strict=True)]
        columns: Columns = {
            "detector": lambda row: row[0],
            **each(dict(enumerate(counts)), lambda place, row: number(row[1].cells[place])),
        }
        head = f"{SETS[name]}, against {found.clean} clean images:\n\n"
        tables.append(head + table(columns, found.judges.items()))
    return "\n\n".join(tables) or NOT_EVALUATED


def poisoned_sets(results: ImageResults) -> list[Row]:
    """All models of the backdoor study; ``what`` is the trigger."""
    return [
        Row(name, case["trigger"], case)
        for name in ("mnist", "gtsrb", "cifar10")
        for case in results.backdoors.get(name, ())
    ]


TRIGGER: Columns = {
    **SET,
    "trigger": lambda row: row.what,
    "seed": lambda row: row.found["seed"],
}


def backdoors(results: ImageResults) -> str:
    """F1 of who finds the poison."""

    def f1(detector: str, row: Row) -> str:
        part = row.found["train"].get(detector)
        if part is None:
            return "–"
        return f"accuses {part['accused']}" if row.what == NO_TRIGGER else number(part.get("f1"))

    def success(row: Row) -> str:
        return "–" if row.what == NO_TRIGGER else percent(row.found["success"]["attack"])

    def paper(row: Row) -> str:
        known = BACKDOORS.get((row.name, row.what))
        return "–" if known is None else " / ".join(f"{v:.4f}" for v in known)

    columns: Columns = {
        **TRIGGER,
        "poisoned": lambda row: "{poisoned} of {files}".format(**ours(row)),
        "accuracy, %": lambda row: percent(row.found["success"]["accuracy"]),
        "attack success, %": success,
        **each(F1, f1),
        "paper: NCCR / AC / STRIP": paper,
    }
    rows = poisoned_sets(results)
    return table(columns, rows) if rows else NOT_EVALUATED


def ours(row: Row) -> Mapping[str, Any]:
    """What the detector by name makes of a set."""
    found: Mapping[str, Any] = row.found["train"]["NCCR, grouped"]
    return found


def backdoor_verdict(results: ImageResults) -> str:
    """In how many cases F1 is high, and what is said of clean sets."""
    judged = [ours(row) for row in poisoned_sets(results)]
    if not judged:
        return NOT_EVALUATED
    values = [part["f1"]["value"] for part in judged if "f1" in part]
    clean = [part["accused"] for part in judged if "f1" not in part]
    high, good = (sum(value >= least for value in values) for least in (0.99, 0.97))
    missed = sum(value == 0 for value in values)
    return (
        f"**F1 is .99 or more in {high} of {len(values)} cases**, .97 or more in {good}; in "
        f"{missed} the name is not accused. Of {len(clean)} clean sets "
        f"{sum(count > 0 for count in clean)} are accused."
    )


def median_rates(results: ImageResults) -> list[Row]:
    """Median scalar NCCR of clean and of poisoned images, under each noise."""
    return [
        row._replace(found={"seed": row.found["seed"], **{k: v[2] for k, v in rates.items()}})
        for row in poisoned_sets(results)
        if "small, poisoned" in (rates := row.found["train"]["rates"])
    ]


def inverted(results: ImageResults) -> str:
    """How often the order of the paper's Fig. 4 is seen."""
    rates = [row.found for row in median_rates(results)]
    less = sum(r["small, poisoned"] < r["small, clean"] for r in rates)
    more = sum(r["destroying, poisoned"] > r["destroying, clean"] for r in rates)
    return f"The first holds in {less} of {len(rates)} cases, the second in {more}."


def sides(results: ImageResults) -> str:
    """How clear it is: alarms, and how unlike other names both sides of the target are."""
    places = dict(enumerate(BACKDOOR_COLUMNS))
    columns = {**TRIGGER, **each(places, lambda place, row: backdoor_cells(ours(row))[place])}
    return table(columns, poisoned_sets(results))


def inversion(results: ImageResults) -> str:
    """The paper's Fig. 4: the scalar under small and under destroying noise."""
    headings = {
        "small, clean": "σ 8/255: clean",
        "small, poisoned": "poisoned",
        "destroying, clean": "σ 1: clean",
        "destroying, poisoned": " poisoned",
    }
    columns = {**TRIGGER, **each(headings, lambda key, row: f"{row.found[key]:.4f}")}
    rows = median_rates(results)
    return table(columns, rows) if rows else NOT_EVALUATED


def robustness(results: ImageResults) -> str:
    """Models in the order of their NCCR, set by set."""
    rows = [
        Row(name, ranked.model, (ranked, study.accuracy[ranked.model]))
        for name, study in results.robustness.items()
        for ranked in study.ranked
    ]
    conditions = {"clean": "clean, %", "noise": "noise, %", "pgd": "PGD, %"}
    columns: Columns = {
        **SET,
        "rank": lambda row: row.found[0].rank,
        "model": lambda row: row.what,
        "mean NCCR": lambda row: number(row.found[0].mean, 4),
        **each(conditions, lambda kind, row: percent(row.found[1][kind])),
        "p against the next": lambda row: chance(row.found[0].p_next),
    }
    return table(columns, rows) if rows else NOT_EVALUATED


def adaptive(results: ImageResults) -> str:
    """What is left when the attack goes through the defence."""
    rows = []
    for name in SETS:
        study = results.nip.get(name)
        cells = study.adaptive if study else None
        rows += [Row(name, "", None)] if cells is None else [Row(name, c.name, c) for c in cells]

    def left(place: int, row: Row) -> str:
        return NOT_EVALUATED if row.found is None else percent(behind(row.found)[place])

    defences = ("undefended, %", "guided NIP, %", "noise as strong, %")
    columns: Columns = {
        **SET,
        "attack": lambda row: row.what or "–",
        "images": lambda row: row.found.attempts if row.found else "–",
        **each(dict(enumerate(defences)), left),
    }
    return table(columns, rows)


def behind(cell: AdaptiveCell) -> list[Interval]:
    """What is left undefended, behind guided NIP, and behind noise."""
    noise = next(title for title in cell.still_right if title.startswith(MATCHED))
    return [cell.still_right[title] for title in ("undefended", GUIDED, noise)]


def guided_mean(results: ImageResults, name: str) -> str:
    """Mean DSR of guided NIP over the attacks that fool enough images, percent."""
    study = results.nip.get(name)
    return NOT_EVALUATED if study is None else mean_dsr(with_rate(study.cells), GUIDED)


def with_rate(cells: Sequence[DefendedCell]) -> list[DefendedCell]:
    """Cells of attacks that fool enough images for a rate."""
    return [cell for cell in cells if cell.examples >= MIN_SUCCESSES]


def mean_dsr(cells: Sequence[DefendedCell], defence: str) -> str:
    """Mean DSR of a defence over attacks, percent."""
    return f"{100 * float(np.mean([cell.dsr[defence].value for cell in cells])):.1f}"


def dsr(
    cells: Sequence[DefendedCell],
    title: Callable[[DefendedCell], str],
    write: Callable[[Interval], str] = lambda share: f"{100 * share.value:.0f}",
) -> Columns:
    """A column for each attack; rows are names of defences."""
    headings = {place: title(cell) for place, cell in enumerate(cells)}
    return each(headings, lambda place, defence: write(cells[place].dsr[defence]))


def benign(study: DefenceResults) -> Columns:
    """Defences with their benign accuracy."""
    known = study.benign.behind
    return {"defence": str, "benign, %": lambda d: percent(known[d]) if d in known else "–"}


def counted(cell: DefendedCell) -> str:
    """How many images an attack fools."""
    return f"{cell.examples} of {cell.attempts}"


def weak(cells: Sequence[DefendedCell], title: Callable[[DefendedCell], str], at: str = "") -> str:
    """The attacks that fool too few images for a rate."""
    few = [title(cell) for cell in cells if cell.examples < MIN_SUCCESSES]
    return f"\nToo few fool for a rate{at}: {', '.join(few)}.\n" if few else ""


def each_set(
    found: Mapping[str, DefenceResults],
    names: Sequence[str],
    write: Callable[[DefenceResults], Iterator[str]],
) -> str:
    """The parts of every set, each below a line that begins with the set's name."""
    parts = []
    for name in names:
        if name in found:
            parts += [f"{SETS[name]}, {found[name].model}{part}" for part in write(found[name])]
        else:
            parts.append(f"{SETS[name]}: {NOT_EVALUATED}")
    return "\n\n".join(parts)


def nip(study: DefenceResults) -> Iterator[str]:
    """What each defence recovers, mean over attacks, and benign accuracy."""
    cells = with_rate(study.cells)
    columns: Columns = {
        **benign(study),
        "mean DSR, %": lambda defence: mean_dsr(cells, defence),
        **dsr(cells, lambda cell: f"{cell.name} ({cell.examples})"),
    }
    left_out = weak(study.cells, lambda cell: f"{cell.name} ({counted(cell)})")
    yield (
        f"; {study.benign.images} benign images, undefended {percent(study.benign.undefended)} % "
        f"correctly classified:\n\n{table(columns, (*study.benign.behind, ORACLE))}{left_out}"
    )


def screening(results: ImageResults) -> str:
    """What was flagged in folders with clean and attacked images."""
    rows = [
        Row(name, how, (study.mixed, counts))
        for name, study in results.screening.items()
        for how, counts in (
            (f"`--fpr {study.rate:g}`", study.mixed.by_rate),
            (f"`--fdr {study.discoveries:g}`", study.mixed.by_discoveries),
        )
    ]
    columns: Columns = {
        "folder": lambda row: f"{SETS[row.name]}, {row.found[0].attack}",
        "judged by": lambda row: row.what,
        "attacked flagged": lambda row: f"{row.found[1].attacked} of {row.found[0].attacked}",
        "clean flagged": lambda row: f"{row.found[1].clean} of {row.found[0].clean}",
        "images a second": lambda row: f"{row.found[0].images_a_second:.0f}",
    }
    return table(columns, rows) if rows else NOT_EVALUATED


def shrunk(results: ImageResults) -> str:
    """What was flagged of clean images that were made smaller."""
    rows = [Row(n, f"{r.side}", r) for n, study in results.screening.items() for r in study.shrunk]
    columns: Columns = {
        **SET,
        "size": lambda row: f"{row.what} × {row.what}",
        "`adversarial`": lambda row: f"{row.found.adversarial} of {row.found.images}",
        "`out_of_domain`": lambda row: f"{row.found.out_of_domain} of {row.found.images}",
    }
    return table(columns, rows) if rows else NOT_EVALUATED


def spatial(study: DefenceResults) -> Iterator[str]:
    """What is recovered of rotated and moved images."""
    attack, random = study.cells[0].attack, study.at_random
    by_chance = (
        f"moved by chance, {percent(random.accuracy)} % of {random.images} correctly classified "
        "images still are; "
        if random
        else ""
    )

    def title(cell: DefendedCell) -> str:
        return f"{cell.attack['keep']}: DSR, % ({counted(cell)} fool)"

    columns = {**benign(study), **dsr(with_rate(study.cells), title, percent)}
    yield (
        f", {attack['degrees']:g}° and {attack['pixels']:g} pixels either way; {by_chance}"
        f"{study.benign.images} benign, undefended {percent(study.benign.undefended)} %:\n\n"
        + table(columns, (*study.benign.behind, ORACLE)).rstrip("\n")
    )


def spatial_detection(results: ImageResults) -> str:
    """What the shipped calibrations make of them."""
    rows: list[Row] = []
    for name in SETS:
        study = results.spatial.get(name)
        found = (study.detection if study else None) or {}
        kinds = [Row(name, kind, found[kind]) for kind in sorted(found, reverse=True)]
        rows += kinds or [Row(name, "–", None)]

    def shown(write: Callable[[Detected], object]) -> Callable[[Row], object]:
        return lambda row: NOT_EVALUATED if row.found is None else write(row.found)

    columns: Columns = {
        **SET,
        "images": lambda row: row.what,
        "count": shown(lambda found: found.images),
        "clean": shown(lambda found: found.clean),
        "AUROC": shown(lambda found: number(found.auroc)),
        "flagged at 5 %, %": shown(lambda found: percent(found.flagged["0.05"])),
        "at 1 %, %": shown(lambda found: percent(found.flagged["0.01"])),
        "clean flagged at 5 / 1 %, %": shown(
            lambda found: " / ".join(percent(found.false_positives[rate]) for rate in RATES)
        ),
    }
    return table(columns, rows).rstrip("\n")


def elasticity(study: DefenceResults) -> Iterator[str]:
    """DSR by the size of the change."""
    titles = {"pgd-l2": "PGD within a ball of L2", "pgd": "PGD, largest change"}
    for attack, title in titles.items():
        found = [cell for cell in study.cells if cell.attack["name"] == attack]
        cells = with_rate(found)
        if not cells:
            continue
        columns: Columns = {
            "defence": str,
            **dsr(cells, lambda cell: f"{cell.attack['eps']:g} ({counted(cell)})"),
        }
        shown = table(columns, (*study.benign.behind, ORACLE))
        few = weak(found, lambda cell: f"{cell.attack['eps']:g} ({cell.examples})", " at")
        steps = found[0].attack["steps"]
        yield f", {title}, {steps} steps, DSR in %:\n\n{shown}{few}".rstrip("\n")


def remote(results: ImageResults) -> str:
    """Substitutes of a served model, and what their purifiers do for it."""
    parts = []
    for name in (name for name in SETS if name in results.remote):
        found = sorted(results.remote[name].values(), key=lambda one: one.queries)
        heading = f"agreement, % of {found[0].agreement_images}"
        columns: Columns = {
            "substitute": lambda one: one.network,
            "queries": lambda one: one.queries,
            "requests": lambda one: one.requests,
            heading: lambda one: f"{100 * one.agreement:.1f}",
            "substitute right, %": lambda one: f"{100 * one.substitute_right:.1f}",
            "served model right, %": lambda one: f"{100 * one.remote_right:.1f}",
            "benign undefended, %": lambda one: percent(one.benign.undefended),
            "benign behind guided NIP, %": lambda one: percent(one.benign.behind[GUIDED]),
            "queries to measure": lambda one: one.queries_measuring,
        }
        shown = table(columns, found).rstrip("\n")
        parts.append(f"{SETS[name]}, {found[0].served} served:\n\n{shown}")
        parts += map(remote_attacks, found)
    return "\n\n".join(parts) or NOT_EVALUATED


def remote_attacks(one: RemoteResults) -> str:
    """DSR before the served model, of one substitute's purifiers."""
    cells = [*one.white_box, *one.transferred]
    known = one.benign.behind

    def title(cell: DefendedCell) -> str:
        word = "white box" if cell in one.white_box else "transferred"
        return f"{word}, {cell.name} ({counted(cell)})"

    columns: Columns = {
        "purifier": str,
        "benign, %": lambda name: f"{100 * known[name].value:.1f}",
        **dsr(with_rate(cells), title),
    }
    shown = f"{table(columns, known)}{weak(cells, title)}".rstrip("\n")
    return f"{one.network}, {one.queries} queries, DSR in %:\n\n{shown}"


def parts(found: Mapping[str, Any]) -> dict[str, object]:
    """Fill the template."""
    results = read_record(ImageResults, found["images"])
    written = (
        *(goals, met, table_three, false_positives, baselines, backdoors, backdoor_verdict, sides),
        *(inversion, inverted, robustness, adaptive, screening, shrunk, spatial_detection, remote),
        *(overlap, paired, smallest, times),
    )
    return {
        "models": models(),
        **{write.__name__: write(results) for write in written},
        **{f"detection_{name}": detection(results, name) for name in ("mnist", "cifar10")},
        **{f"mean_{name}": guided_mean(results, name) for name in SETS},
        "nip": each_set(results.nip, ("mnist", "gtsrb", "cifar10"), nip),
        "spatial": each_set(results.spatial, tuple(SETS), spatial),
        "elasticity": each_set(results.elasticity, tuple(SETS), elasticity),
    }


PAGE = Page("images", __file__, ("images",), parts)


if __name__ == "__main__":
    PAGE.run()
