"""Results pages are what their writers make of the committed results, and of nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from studies._lib.pages import PAGES_FOLDER, fill
from studies.write_pages import all_pages

ROOT = Path(__file__).parents[2]
PAGES = all_pages()
LINKED = sorted(
    path
    for folder in ("docs", "recipes", "studies")
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
