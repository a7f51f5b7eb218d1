"""Sections of the page of one file that do not depend on its kind."""

from __future__ import annotations

import math

from nip_audio.core.decision import EMBEDDING_DISTANCE, LOGIT_CHANGES
from nip_audio.reporting.escaping import html_text
from nip_audio.reporting.evidence import Evidence
from nip_audio.screening.judge import noise_words
from nip_audio.screening.words import Words

__all__ = ["evidence_html", "figure", "section"]

_STEPS = (1.0, 2.0, 4.0)


def section(title: str, text: str, inside: str) -> str:
    """Return a titled section; the text is no markup, what is inside is."""
    return f"<section><h3>{html_text(title)}</h3><p>{html_text(text)}</p>{inside}</section>"


def figure(caption: str, inside: str) -> str:
    """Return a figure; the caption is no markup, what is inside is."""
    return f"<figure><figcaption>{html_text(caption)}</figcaption>{inside}</figure>"


def evidence_html(evidence: Evidence, words: Words) -> str:
    """Return the detector's evidence as a table that is coloured by how unusual it is."""
    table = evidence.table
    if table is None:
        return section(
            "What the verdict rests on",
            "The calibration of this run was not at hand: pass it to nip-audio report as "
            "--calibration to see what the detector saw.",
            "",
        )
    titles = [noise_words(noise, words) for noise in evidence.noises]
    head = "".join(f'<th scope="col">{html_text(title)}</th>' for title in titles)
    rows = []
    for name, values in zip(evidence.rows, table.T, strict=True):
        cells = "".join(_cell(float(value)) for value in values)
        what = name if name in (*LOGIT_CHANGES, EMBEDDING_DISTANCE) else f"layer {name}"
        rows.append(f'<tr><th scope="row">{html_text(what)}</th>{cells}</tr>')
    return section(
        "What the verdict rests on",
        "How much layers and decision change under noise, in robust deviations from clean "
        f"{words.clean}: "
        "0 is usual, beyond ±3 is rare. The detector judges all of it together.",
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
