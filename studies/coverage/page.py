"""Write docs/results/coverage.md: python -m studies.coverage.page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from studies._lib.pages import Page, answered
from studies._lib.tables import Columns, each, table
from studies.coverage.rows import STATUSES, Row, Section, read_sections

Results = Mapping[str, Any]

PAPERS = {
    "NIP": "NIP: neuron-level inverse perturbation (Chen et al., arXiv 2112.13060)",
    "NCCR": "NCCR: neuron coverage change rate (Shi, arXiv 2507.21483)",
}

RESULTS = (
    *("backdoors", "deep_speaker", "images", "nccr_audionet", "nccr_resnet34", "nccr_xvector"),
    *("nip", "nip_studies", "defence_time", "resnet34", "vctk"),
)


def _counted(sections: Sequence[Section]) -> Counter[str]:
    return Counter(row.status for section in sections for row in section.rows)


def counts(sections: Sequence[Section]) -> str:
    """How many rows have each status, by paper."""
    by_paper = {name: [s for s in sections if s.paper == name] for name in PAPERS}
    columns: Columns = {
        "paper": lambda row: row[0],
        **each(tuple(STATUSES), lambda status, row: _counted(row[1])[status]),
        "rows": lambda row: _counted(row[1]).total(),
    }
    return table(columns, [*by_paper.items(), ("both", sections)])


def meanings() -> str:
    """What each status means."""
    return "\n".join(f"- *{status}*: {meaning}." for status, meaning in STATUSES.items())


def _links(paths: Sequence[str]) -> str:
    return "<br>".join(f"`{path}`" for path in paths) or "–"


def section_table(section: Section, results: Results) -> str:
    """One section of a paper."""
    pages = {name: f"[{name}]({name}.md)" for row in section.rows for name in row.pages}
    columns: Columns = {
        "part": lambda row: row.what,
        "status": lambda row: f"**{row.status}**",
        "theirs": lambda row: row.theirs or "–",
        "ours": lambda row: _ours(row, results),
        "why": lambda row: row.why or "–",
        "results": lambda row: ", ".join(pages[name] for name in row.pages) or "–",
        "code": lambda row: _links(row.code),
        "tests": lambda row: _links(row.tests),
    }
    return table(columns, section.rows)


def _ours(row: Row, results: Results) -> str:
    return answered(row.ours, results) if row.ours else "–"


def papers(sections: Sequence[Section], results: Results) -> str:
    """All sections, paper by paper."""
    parts = []
    for name, title in PAPERS.items():
        parts.append(f"## {title}")
        for section in sections:
            if section.paper == name:
                parts += [f"### {section.title}", section_table(section, results)]
    return "\n\n".join(parts)


def parts(results: Results) -> dict[str, object]:
    """Fill the template."""
    sections = read_sections()
    found = _counted(sections)
    return {
        "rows": found.total(),
        **{status.replace("-", "_").replace(" ", "_"): found[status] for status in STATUSES},
        "counts": counts(sections),
        "meanings": meanings(),
        "papers": papers(sections, results),
    }


PAGE = Page("coverage", __file__, RESULTS, parts)

if __name__ == "__main__":
    PAGE.run()
