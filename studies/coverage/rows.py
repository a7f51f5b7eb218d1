"""Rows of the coverage table: one for each part of the two papers."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml

from studies._lib.pages import PAGES_FOLDER, ROOT
from studies._lib.records import read_record

__all__ = ["STATUSES", "Row", "Section", "faults", "read_sections"]

STATUSES: Mapping[str, str] = {
    "works": "built as the paper describes it, tested and, where it can be, measured; what the "
    "paper says of it is seen here too",
    "weaker": "built and measured, but on less than in the paper, or with a result short of it",
    "stand-in": "something else stands in its place, and is called so",
    "not evaluated": "not built, or built and not measured",
}

_TABLE = Path(__file__).with_name("coverage.yaml")


@dataclass(frozen=True)
class Row:
    """One part of a paper.

    Attributes:
        what: The part: an equation, algorithm, attack, baseline, model, data set, table or figure.
        status: One of ``STATUSES``.
        code: Files that hold it, each with ``::NAME`` where it is one class, function or constant.
        tests: Files of tests, or single tests, in the same form.
        pages: Results pages, by name.
        theirs: What the paper reports.
        ours: What is measured here; numbers are queries, as in a page's template.
        why: Why it is no better than its status; what a stand-in is.
    """

    what: str
    status: str
    code: Sequence[str] = ()
    tests: Sequence[str] = ()
    pages: Sequence[str] = ()
    theirs: str | None = None
    ours: str | None = None
    why: str | None = None


@dataclass(frozen=True)
class Section:
    """Rows of one section of a paper."""

    paper: str
    title: str
    rows: Sequence[Row]


def read_sections(path: Path = _TABLE) -> list[Section]:
    """Read the table."""
    return [read_record(Section, part) for part in yaml.safe_load(path.read_text(encoding="utf-8"))]


def faults(row: Row) -> list[str]:
    """Return what is wrong with a row: an unknown status, or a file, test or page that is gone."""
    found = [f"no {what} {ref}" for what, ref in _references(row) if not _is_there(ref)]
    found += [f"no page {p}" for p in row.pages if not (PAGES_FOLDER / f"{p}.md").is_file()]
    if row.status not in STATUSES:
        found.append(f"status is {row.status!r}, expected one of {', '.join(STATUSES)}")
    if row.status != "not evaluated" and not (row.code and row.tests):
        found.append(f"{row.status!r} needs code and tests")
    if row.status == "weaker" and not row.pages:
        found.append("'weaker' needs the page that shows it")
    if row.status != "works" and not row.why:
        found.append(f"{row.status!r} needs a reason")
    return found


def _references(row: Row) -> Iterable[tuple[str, str]]:
    yield from (("file", ref) for ref in row.code)
    yield from (("test", ref) for ref in row.tests)


def _is_there(reference: str) -> bool:
    path, _, name = reference.partition("::")
    if not (ROOT / path).is_file():
        return False
    return not name or name in _names(path)


@lru_cache(maxsize=256)
def _names(path: str) -> frozenset[str]:
    """Return the names that a Python file defines, methods as ``Class.method`` too."""
    found: set[str] = set()
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = (part for part in node.body if isinstance(part, ast.FunctionDef))
            found |= {f"{node.name}.{part.name}" for part in methods}
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return frozenset(found)
