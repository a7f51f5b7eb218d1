"""A results page: a template whose {placeholders} are filled from committed results.

A page's module defines ``PAGE`` and ends with ``PAGE.run()`` under ``__main__``, so that
``python -m studies.nccr.page`` writes one page and ``python -m studies.write_pages`` all of them.
"""

from __future__ import annotations

import argparse
import json
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nip_audio.models.cards import CARD_NAME, model_id_of
from studies._lib.numbers import NOT_EVALUATED, NothingFoundError, look_up

__all__ = [
    "PAGES_FOLDER",
    "RESULTS_FOLDER",
    "ROOT",
    "Page",
    "answered",
    "earlier_weights",
    "fill",
    "prose_numbers",
    "read_results",
]

ROOT = Path(__file__).resolve().parents[2]
RESULTS_FOLDER = ROOT / "studies" / "results"
PAGES_FOLDER = ROOT / "docs" / "results"

_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_QUERY = re.compile(r"\{= ([^{}]*)\}")
_GIVEN = re.compile(r"\{(given|paper|unkept): ([^{}]*)\}")

UNKEPT = """
---

† Measured once during development; the results were not kept, so that this number cannot be made
again from a file in this repository. Take it as a hint.
"""

_WIDTH = 120

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Page:
    """One page of ``docs/results``.

    Attributes:
        name: File name without its suffix.
        module: File of the page's module; ``template.md`` beside it is Markdown with
            {placeholders}.
        results: Names of the JSON files that the page is made from.
        parts: Makes the value of every placeholder from the results, by name of their files.
        draw: Draws the page's plots from the same results into the folder of the page.
    """

    name: str
    module: str
    results: tuple[str, ...]
    parts: Callable[[Results], Mapping[str, object]]
    draw: Callable[[Results, Path], None] | None = None

    @property
    def template(self) -> Path:
        """Markdown with {placeholders}."""
        return Path(self.module).with_name("template.md")

    def text(self, folder: Path = RESULTS_FOLDER) -> str:
        """Make the page from the results in a folder."""
        return self.made_from(read_results(folder, self.results))

    def made_from(self, results: Results, *, partial: bool = False) -> str:
        """Make the page from results that are read already; they may be ``partial``."""
        template = self.template.read_text(encoding="utf-8")
        text = fill(template, self.parts(results), results, partial=partial)
        return with_note(text, earlier_weights(results, shipped_models()))

    def write(
        self, folder: Path = RESULTS_FOLDER, out: Path = PAGES_FOLDER, *, partial: bool = False
    ) -> Path:
        """Write the page and its plots; return where the page is."""
        results = read_results(folder, self.results)
        if self.draw is not None:
            self.draw(results, out)
        path = out / f"{self.name}.md"
        path.write_text(self.made_from(results, partial=partial), encoding="utf-8")
        return path

    def run(self) -> None:
        """Write the page as the command line says."""
        parser = argparse.ArgumentParser(description=f"Write {self.name}.md from its results.")
        parser.add_argument("--results", type=Path, default=RESULTS_FOLDER, help="folder to read")
        parser.add_argument("--out", type=Path, default=PAGES_FOLDER, help="folder to write to")
        parser.add_argument("--partial", action="store_true", help="the results are not complete")
        options = parser.parse_args()
        self.write(options.results, options.out, partial=options.partial)


def read_results(folder: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Read NAME.json of each name."""
    return {
        name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in names
    }


def shipped_models() -> dict[str, str]:
    """Return the identity of the weights of each shipped model, by its name."""
    cards = (ROOT / "pretrained").glob(f"*/{CARD_NAME}")
    return {
        path.parent.name: model_id_of(json.loads(path.read_text(encoding="utf-8"))["files"])
        for path in cards
    }


def earlier_weights(results: object, shipped: Mapping[str, str], name: str = "") -> dict[str, str]:
    """Find what was measured on weights of a shipped model that it no longer has.

    Args:
        results: Anything read from JSON. A measured model is a mapping with ``model_id``, and with
            its name as ``model`` or as the key that it stands under.
        shipped: Identities of today's weights by name.
        name: Key that the results stand under.

    Returns:
        Identities of the earlier weights by the model's name.
    """
    found: dict[str, str] = {}
    if isinstance(results, Mapping):
        measured, own = results.get("model_id"), results.get("model", name)
        if measured is not None and own in shipped and measured != shipped[own]:
            found[own] = measured
        for key, value in results.items():
            found |= earlier_weights(value, shipped, key)
    elif isinstance(results, list):
        for value in results:
            found |= earlier_weights(value, shipped)
    return found


def with_note(text: str, earlier: Mapping[str, str]) -> str:
    """Say after the first paragraph which rows are of earlier weights."""
    if not earlier:
        return text
    names = " and of ".join(
        f"{name} ({identity[:8]})" for name, identity in sorted(earlier.items())
    )
    note = f"**Earlier weights.** Measured before the weights were replaced: the rows of {names}."
    title, first, rest = text.split("\n\n", 2)
    return "\n\n".join([title, first, _wrapped(note).strip(), rest])


def fill(
    template: str,
    parts: Mapping[str, object],
    results: Results | None = None,
    *,
    partial: bool = False,
) -> str:
    """Fill a template.

    ``{name}`` is a part that the page's module makes, ``{= 1% path}`` a number from the results
    (``look_up``). Other numbers in prose say where they come from: ``{given: 30 voices}`` are
    definitions and settings, ``{paper: .95}`` is what a paper reports, and ``{unkept: 59 %}`` was
    measured without results being kept, which the page says in a footnote. In a ``partial`` page
    what is not in the results is not evaluated; else it is an error.

    Raises:
        ValueError: If a placeholder has no value, or a value no placeholder.
    """
    asked = set(_PLACEHOLDER.findall(template))
    if asked != set(parts):
        raise ValueError(
            f"the template lacks {sorted(set(parts) - asked)}, and nothing fills "
            f"{sorted(asked - set(parts))}"
        )

    text = answered(template, results or {}, partial=partial)
    if "†" in text:
        text = text.rstrip() + "\n" + UNKEPT
    return _wrapped(_PLACEHOLDER.sub(lambda found: str(parts[found[1]]), text))


def answered(text: str, results: Results, *, partial: bool = False) -> str:
    """Answer the queries of a text, and keep what is given, a paper's, or not kept (``fill``)."""

    def answer(found: re.Match[str]) -> str:
        try:
            return look_up(" ".join(found[1].split()), results)
        except NothingFoundError:
            if not partial:
                raise
            return NOT_EVALUATED

    text = _QUERY.sub(answer, text)
    return _GIVEN.sub(lambda found: found[2] + "†" * (found[1] == "unkept"), text)


def _wrapped(text: str) -> str:
    """Break the lines of paragraphs and lists anew; code, tables and headings stay as they are."""
    pieces = re.split(r"(^```.*?^```$)", text, flags=re.DOTALL | re.MULTILINE)
    for n in range(0, len(pieces), 2):
        blocks = re.split(r"(\n{2,})", pieces[n])
        pieces[n] = "".join(_wrapped_block(block) for block in blocks)
    return "".join(pieces)


def _wrapped_block(block: str) -> str:
    if not block.strip() or re.search(r"^(\||#|!\[|---|<)", block.strip(), flags=re.MULTILINE):
        return block
    items = re.split(r"\n(?=- )", block.strip("\n"))
    lines = [
        textwrap.fill(
            " ".join(item.split()),
            width=_WIDTH,
            subsequent_indent="  " if item.startswith("- ") else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for item in items
    ]
    start = len(block) - len(block.lstrip("\n"))
    end = len(block.rstrip("\n"))
    return block[:start] + "\n".join(lines) + block[end:]


_NAMED = re.compile(
    r"""
    (?:ResNet|LeNet|CIFAR|PGD|WRN-28|train-clean|test-clean)-\d+ | VGG\d+ | MobileNetV1
    | [Ll][012]\b
    | arXiv[: ]\d+\.\d+ | MP3 | x86-64 | F1 | float\d+ | bfloat16 | k[12]\b  # names
    | (?:Eq|Fig|Table|Sec)s?\.?\ \d+(?:\.\d)?(?:(?:–|\ and\ )\d+)?  # parts of papers
    | \(?(?:19|20)\d\d\b\)?  # years
    | ε\ (?:=\ )?\d*\.?\d+(?:/255)? | \b\d+/255\b  # strengths of attacks, which are chosen
    | \[0,\ 1\] | 95\ %\ intervals? | (?:16|8)[ -]bits?\b
    """,
    re.VERBOSE,
)


def prose_numbers(template: str) -> list[str]:
    """Return the numbers that a template's prose has typed in without saying what they are."""
    text = re.sub(
        r"```.*?```|`[^`]*`|\]\([^)]*\)|!\[[^\]]*\]|^#+ [^\n]*$", "", template, flags=re.S | re.M
    )
    for pattern in (_QUERY, _GIVEN, _PLACEHOLDER, _NAMED):
        text = pattern.sub("", text)
    return re.findall(r"\d[\d.,]*\d|\d", text)
