"""Links lead somewhere, commands exist, and generated pages are current."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from nip_audio.cli._commands import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("recipes/**/*.md")])
MADE_BY_HAND = [page for page in PAGES if "results" not in page.relative_to(ROOT).parts]

TO_BE_WRITTEN = {"nip_audio/attacks/sign_noise.py"}
"""Examples of files that a reader is shown how to add, beside those called my_…"""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    local = [link for link in links if not re.match(r"\w+:", link)]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", MADE_BY_HAND, ids=name_of)
def test_commands_and_modules_exist(page):
    text = page.read_text(encoding="utf-8")
    shell = "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    run = set(re.findall(r"(?:^|bin/|\$ ?)nip-audio ([a-z][a-z-]*)", shell, re.MULTILINE))
    assert run <= COMMANDS.keys()
    paths = set(re.findall(r"`(nip_audio/[\w/]+\.py)`", text))
    missing = {path for path in paths if not (ROOT / path).is_file()}
    assert {path for path in missing if path not in TO_BE_WRITTEN and "/my_" not in path} == set()


@pytest.mark.parametrize("writer", ["write_cli_page", "write_api_page"])
def test_generated_pages_are_current(writer):
    spec = importlib.util.spec_from_file_location(writer, ROOT / f"docs/{writer}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "make pages"
