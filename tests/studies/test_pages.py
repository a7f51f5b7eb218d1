"""Results pages are what their writers make of the committed results, and of nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from studies._lib.numbers import look_up
from studies._lib.pages import PAGES_FOLDER, earlier_weights, fill, prose_numbers, with_note
from studies.write_pages import all_pages

ROOT = Path(__file__).parents[2]
PAGES = all_pages()
LINKED = sorted(
    path
    for folder in ("docs/results", "recipes", "studies")
    for path in (ROOT / folder).rglob("*.md")
    if path.name != "template.md"
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_what_its_results_make(page):
    committed = (PAGES_FOLDER / f"{page.name}.md").read_text(encoding="utf-8")
    assert page.text() == committed, "run make pages"


def test_every_page_has_a_writer():
    assert {page.name for page in PAGES} == {path.stem for path in PAGES_FOLDER.glob("*.md")}


@pytest.mark.parametrize("path", LINKED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_and_plots_are_there(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    missing = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert not missing


def test_a_template_is_filled_to_the_last_part():
    assert fill('{a}: {"b": 1} {a}', {"a": 2}) == '2: {"b": 1} 2'
    with pytest.raises(ValueError, match=r"nothing fills \['a'\]"):
        fill("{a}", {})
    with pytest.raises(ValueError, match=r"the template lacks \['b'\]"):
        fill("{a}", {"a": 1, "b": 2})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_prose_types_no_number_in(page):
    """Each is queried from the results, or marked as given, a paper's, or not kept."""
    assert prose_numbers(page.template.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("template", "typed"),
    [
        ("ResNet-34 has 97 % at ε 0.002, {= 1% a }, {given: 30} and 1,200", ["97", "1,200"]),
        ("See Fig. 4 and Sec. 3.2 (2020), `fpr 0.01`, [page](a1.md).\n# 5 pages\n", []),
        ("Steps: .95 and 3.5", ["95", "3.5"]),
    ],
)
def test_typed_numbers_are_seen(template, typed):
    assert prose_numbers(template) == typed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_begins_with_three_sentences(page):
    """What was tested, what was found, what it means."""
    title, summary, *_ = page.text().split("\n\n")
    assert title.startswith("# ")
    bare = re.sub(r"\([^)]*\)|`[^`]*`|\d\.\d|et al\.", "", summary)
    assert len(re.findall(r"\.(?:\s|$)", bare)) == 3


RESULTS = {
    "r": {
        "cells": [
            {"attack": "pgd", "eps": 8 / 255, "settings": {"steps": 10}, "dsr": {"value": 0.125}},
            {"attack": "pgd", "eps": 0.1, "settings": {"steps": 20}, "dsr": {"value": 0.5}},
            {"attack": "cw", "eps": None, "settings": {}, "dsr": None},
        ],
        "clips": 1200,
        "accuracy": {"no defence": {"value": 0.8}, "JPEG 25/30": {"value": 0.4}},
    }
}


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("0% r/accuracy/no defence", "80"),
        (", r/clips", "1,200"),
        ("1% r/cells[attack=pgd;eps=8/255]/dsr", "12.5"),
        (".2f r/cells[settings.steps=20]/dsr", "0.50"),
        ("max 0% r/cells/*/dsr", "50"),
        ("mean .3f r/cells[attack=pgd]/dsr", "0.312"),
        ("count d r/cells[attack=pgd]/dsr", "2"),
        ("count d r/cells[attack=pgd;eps>=0.05]/dsr", "1"),
        ("0% r/cells/1/dsr * r/accuracy/no defence", "40"),
        ("1% r/accuracy/no defence - r/cells/1/dsr", "30.0"),
    ],
)
def test_queries(query, text):
    assert look_up(query, RESULTS) == text
    assert fill(f"a {{= {query} }} b", {}, RESULTS) == f"a {text} b"


@pytest.mark.parametrize(
    "query", ["0% r/nothing", "0% r/cells[attack=pgd]/dsr", "0% r/cells[eps=1]"]
)
def test_a_query_that_finds_none_or_several_is_an_error(query):
    with pytest.raises(ValueError, match="expected one"):
        look_up(query, RESULTS)


def test_what_was_not_kept_has_a_footnote():
    text = fill("{given: 30}, {paper: .95}, {unkept: 59 %}", {})
    assert text.startswith("30, .95, 59 %†\n")
    assert "† Measured once" in text
    assert "†" not in fill("{given: 30}", {})


def test_a_page_says_which_of_its_rows_are_of_earlier_weights():
    shipped = {"one": "a" * 64, "two": "b" * 64}
    results = {
        "attacks": {"systems": {"s": {"model": "one", "model_id": "c" * 64}}},
        "detected": {"two": {"model_id": "b" * 64}, "mine": {"model_id": "d" * 64}},
    }
    assert earlier_weights(results, shipped) == {"one": "c" * 64}
    assert earlier_weights([results["detected"]], shipped | {"two": "e" * 64}) == {"two": "b" * 64}
    page = "# Title\n\nWhat was found.\n\n## Rows\n"
    assert with_note(page, {}) == page
    noted = with_note(page, {"one": "c" * 64})
    assert noted.startswith("# Title\n\nWhat was found.\n\n**Earlier weights.**")
    assert "the rows of one (cccccccc)." in noted
    assert noted.endswith("\n\n## Rows\n")
