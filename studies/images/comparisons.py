"""Tables of the page of images that compare methods, and what all of its tables share."""

from __future__ import annotations

from typing import Any, NamedTuple

from nip_audio.evaluation.statistics import MIN_SUCCESSES
from studies._lib.numbers import NOT_EVALUATED, number
from studies._lib.paired import Paired, paired_tests
from studies._lib.tables import Columns, each, table
from studies.images.purification import GUIDED, ORACLE
from studies.images.results import ImageResults

__all__ = ["SET", "SETS", "Row", "chance", "overlap", "paired", "smallest", "times"]

SETS = {"mnist": "MNIST", "cifar10": "CIFAR-10", "gtsrb": "GTSRB"}


class Row(NamedTuple):
    """A row of a table of several sets: the set, what the row is of, and what it shows."""

    name: str
    what: str
    found: Any


SET: Columns = {"set": lambda row: SETS[row.name]}


def chance(p: float | None) -> str:
    """A p-value; results are kept to five digits."""
    if p is None:
        return "–"
    return f"{p:.1g}" if p else "< 0.00001"


def paired(results: ImageResults) -> str:
    """Paired t-tests of guided NIP against every other defence (the NIP paper's Table III)."""
    rows: list[tuple[str, Paired]] = []
    for name in SETS:
        study = results.nip.get(name)
        cells = [c for c in study.cells if c.examples >= MIN_SUCCESSES] if study else []
        rates = [{title: rate.value for title, rate in cell.dsr.items()} for cell in cells]
        rows += [(name, test) for test in paired_tests(rates, GUIDED) if test.other != ORACLE]
    columns: Columns = {
        "set": lambda row: SETS[row[0]],
        "guided NIP against": lambda row: row[1].other,
        "attacks": lambda row: row[1].attacks,
        "ahead on": lambda row: row[1].ahead,
        "mean difference, points": lambda row: f"{100 * row[1].lead:+.1f}",
        "p": lambda row: chance(row[1].p),
    }
    return table(columns, rows) if rows else NOT_EVALUATED


def times(results: ImageResults) -> str:
    """Processor time of an image behind each defence, model included (the paper's Table V)."""
    studies = {name: results.nip[name].benign for name in SETS if name in results.nip}
    names = list(dict.fromkeys(n for benign in studies.values() for n in benign.seconds))

    def shown(name: str, row: str) -> str:
        seconds = studies[name].seconds.get(row)
        return NOT_EVALUATED if seconds is None else f"{1000 * seconds:.2f}"

    columns: Columns = {
        "defence": str,
        **each({name: f"{SETS[name]}, ms" for name in studies}, shown),
    }
    return table(columns, sorted(names)) if names else NOT_EVALUATED


def smallest(results: ImageResults) -> str:
    """Baselines against attacks at full strength, and at the smallest that fools."""
    rows = [
        Row(name, cell.attack, (study.clean, cell))
        for name in SETS
        if (study := results.smallest.get(name))
        for cell in study.cells
    ]
    judges = list(dict.fromkeys(judge for row in rows for judge in row.found[1].judges))
    columns: Columns = {
        **SET,
        "attack": lambda row: row.what,
        "strength": lambda row: "smallest that fools" if row.found[1].smallest else "full",
        "median ε": lambda row: f"{row.found[1].median_eps:.4f}",
        "examples": lambda row: row.found[1].examples,
        "clean images": lambda row: row.found[0],
        **each(judges, lambda judge, row: number(row.found[1].judges[judge])),
    }
    return table(columns, rows) if rows else NOT_EVALUATED


def overlap(results: ImageResults) -> str:
    """Neurons that NIP, CAS and SNS share (the NIP paper's Fig. 11)."""
    rows = [Row(name, "", study) for name in SETS if (study := results.overlap.get(name))]
    groups = list(dict.fromkeys(group for row in rows for group in row.found.shared))
    columns: Columns = {
        **SET,
        "layer": lambda row: row.found.layer,
        "neurons": lambda row: row.found.neurons,
        "images": lambda row: row.found.images,
        **each(groups, lambda group, row: number(row.found.shared[group], 2)),
        "two by chance": lambda row: f"{100 / row.found.neurons:.2f}",
    }
    return table(columns, rows) if rows else NOT_EVALUATED
