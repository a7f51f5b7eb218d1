"""Write the parts of a file's details that recordings and images share as HTML."""

from __future__ import annotations

import math

from nip_audio.reporting.escaping import html_text
from nip_audio.reporting.evidence import Evidence
from nip_audio.screening.judge import change_words, noise_words
from nip_audio.screening.kind import Words

__all__ = ["evidence_html", "figure", "section"]

_STEPS = (1.0, 2.0, 4.0)


def section(title: str, text: str, inside: str) -> str:
    """Return a section; title and text are escaped, ``inside`` is HTML."""
    return f"<section><h3>{html_text(title)}</h3><p>{html_text(text)}</p>{inside}</section>"


def figure(caption: str, inside: str) -> str:
    """Return a figure; the caption is escaped, ``inside`` is HTML."""
    return f"<figure><figcaption>{html_text(caption)}</figcaption>{inside}</figure>"


def evidence_html(evidence: Evidence, words: Words) -> str:
    """Return the detector's evidence as a table, coloured by how unusual each value is."""
    table = evidence.table
    if table is None:
        return section(
            "What the verdict rests on",
            "The calibration of this run was not available. Pass it to nip-audio report with "
            "--calibration to see the detector's evidence.",
            "",
        )
    titles = [noise_words(noise, words) for noise in evidence.noises]
    head = "".join(f'<th scope="col">{html_text(title)}</th>' for title in titles)
    rows = []
    for name, values in zip(evidence.rows, table.T, strict=True):
        cells = "".join(_cell(float(value)) for value in values)
        rows.append(f'<tr><th scope="row">{html_text(change_words(name))}</th>{cells}</tr>')
    return section(
        "What the verdict rests on",
        "How much each layer and the decision change when noise is added, in robust standard "
        f"deviations from the median of clean {words.clean}. 0 is typical, values beyond ±3 are "
        "rare. The detector judges all values together.",
        f'<div class="wide" tabindex="0" role="region" aria-label="What the verdict rests on">'
        f'<table class="heat"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>",
    )


def _cell(value: float) -> str:
    if math.isnan(value):
        return "<td></td>"
    level = sum(abs(value) >= step for step in _STEPS)
    kind = "" if level == 0 else f' class="{"more" if value > 0 else "less"}{level}"'
    return f"<td{kind}>{value:+.1f}</td>"
