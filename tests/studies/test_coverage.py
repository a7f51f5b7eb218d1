"""The coverage page names what exists, and has every equation, algorithm, table and figure."""

from __future__ import annotations

import re

import pytest

from studies._lib.pages import prose_numbers
from studies.coverage.rows import Row, faults, read_sections

SECTIONS = read_sections()
ROWS = [row for section in SECTIONS for row in section.rows]

ROMAN = ("I", "II", "III", "IV", "V", "VI")
PARTS = {
    "NIP": (
        *(f"Eq. {n}" for n in range(1, 14)),
        *(f"Fig. {n}" for n in range(1, 13)),
        *(f"Table {n}" for n in ROMAN),
        *("Algorithm 1", "Algorithm 2"),
    ),
    "NCCR": (*(f"Fig. {n}" for n in range(1, 6)), *(f"Table {n}" for n in range(1, 7))),
}
"""What the papers number."""


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_what_a_row_names_is_there(row):
    assert faults(row) == []


def test_parts_are_named_once():
    named = [(section.paper, row.what) for section in SECTIONS for row in section.rows]
    assert len(set(named)) == len(named)


@pytest.mark.parametrize("paper", PARTS)
def test_every_numbered_part_has_a_row(paper):
    text = "\n".join(
        "\n".join([section.title, *(row.what for row in section.rows)])
        for section in SECTIONS
        if section.paper == paper
    )
    text = re.sub(r"(Eq\. )(\d+) and (\d+)", r"\1\2, \1\3", text)
    missing = [part for part in PARTS[paper] if not re.search(rf"{re.escape(part)}(?!\w)", text)]
    assert missing == []


@pytest.mark.parametrize("row", [row for row in ROWS if row.ours], ids=lambda row: row.what)
def test_figures_of_ours_are_queried(row):
    assert prose_numbers(row.ours) == []


GOOD = {"code": ("studies/coverage/rows.py::faults",), "tests": ("tests/studies/test_coverage.py",)}


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (Row("x", "perfect", **GOOD, why="so"), "status is 'perfect', expected one of works"),
        (Row("x", "works"), "'works' needs code and tests"),
        (Row("x", "weaker", **GOOD, why="so"), "'weaker' needs the page that shows it"),
        (Row("x", "stand-in", **GOOD), "'stand-in' needs a reason"),
        (Row("x", "works", **(GOOD | {"code": ("studies/gone.py",)})), "no file studies/gone.py"),
        (
            Row("x", "works", **(GOOD | {"tests": (f"{GOOD['tests'][0]}::test_gone",)})),
            "no test tests/studies/test_coverage.py::test_gone",
        ),
        (Row("x", "works", **GOOD, pages=("gone",)), "no page gone"),
    ],
)
def test_a_fault_is_found(row, fault):
    assert [found[: len(fault)] for found in faults(row)] == [fault]


def test_a_good_row_has_none():
    assert faults(Row("x", "works", **GOOD, pages=("nip",))) == []
