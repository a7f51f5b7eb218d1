"""Write the parts of a file's details that recordings and images share as HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nip_audio.reporting.escaping import html_text
from nip_audio.reporting.evidence import Evidence, JudgedWindow
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


def _windows_html(windows: Sequence[JudgedWindow]) -> str:
    """Return the most suspicious windows as a table."""
    several = any(one.channel for one in windows)
    titles = [
        "begins at",
        "length",
        *(["channel"] if several else []),
        "distance",
        "resembles most",
    ]
    rows = []
    for one in windows:
        cells = [f"{one.start_s:.1f} s", f"{one.seconds:.1f} s"]
        if several:
            cells.append(str(one.channel) if one.channel else "mean of all")
        cells += [f"{one.distance:.2f}", one.resembles]
        rows.append("".join(f"<td>{html_text(cell)}</td>" for cell in cells))
    head = "".join(f'<th scope="col">{html_text(title)}</th>' for title in titles)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return section(
        "What the verdict rests on",
        "How the model's purifier changes each window of sound, compared with clean, harmlessly "
        "changed and attacked recordings. The distance is log(1 + odds of an attack), so that 0.69 "
        "means even odds; the worst window decides. The most suspicious windows:",
        f'<div class="wide" tabindex="0" role="region" aria-label="What the verdict rests on">'
        f'<table class="windows"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>",
    )


def evidence_html(evidence: Evidence, words: Words) -> str:
    """Return the detector's evidence as a table."""
    table = evidence.table
    if evidence.windows:
        return _windows_html(evidence.windows)
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
