"""Write the report of a screening as one HTML page that needs no network and no other file."""

from __future__ import annotations

import base64
import hashlib
import heapq
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from nip_audio.errors import FileError, InputError
from nip_audio.reporting.distributions import Distributions
from nip_audio.reporting.escaping import html_text, json_for_html
from nip_audio.reporting.examine import Examiner
from nip_audio.reporting.files import replacing
from nip_audio.reporting.provenance import provenance_html
from nip_audio.reporting.rows import SPEAKER_COLUMNS, Rows
from nip_audio.reporting.run import ScreenedRun
from nip_audio.screening.kind import Words
from nip_audio.screening.records import FLAGGED, NOT_JUDGED, ScreenRecord
from nip_audio.screening.sources import Source

__all__ = ["REPORT_NAME", "most_severe", "write_report"]

REPORT_NAME = "report.html"

_ORDER = (*FLAGGED, *NOT_JUDGED, "clean")

_ODDS = "log(1 + odds of an attack), so that 0.69 means even odds"

_MARK = re.compile(r"\{\{(\w+)\}\}")

Progress = Callable[[str], None]
"""Callback with the id of each file that was drawn."""

Piece = Callable[[], Iterable[str]]


def write_report(
    run: ScreenedRun,
    source: Source | None,
    examiner: Examiner | None,
    *,
    details: int = 50,
    progress: Progress = lambda recording: None,
) -> Path:
    """Write report.html into the folder of a run.

    The records are read twice, one by one, and each drawing is written before the next is made, so
    that memory does not grow with the run.

    Args:
        run: Finished screening.
        source: Source of the run's files; None makes a page without links to them.
        examiner: Examiner that draws files; None draws none.
        details: Largest number of files to draw, most severe first.
        progress: Called after each file that is drawn.

    Raises:
        ResumeError: If the records do not agree with the summary.
        OutputError: If the page cannot be written.
        InputError: If ``details`` is negative, or there is an examiner but no source.
    """
    if details < 0:
        raise InputError(f"details is {details}, expected 0 or more; pass 0 to draw no files")
    if examiner is not None and source is None:
        raise InputError(
            "got an examiner but no source, expected both, because files are drawn from their "
            "source; pass source"
        )
    words = run.kind.words
    numbers = Distributions(_harmless(run))
    drawn = most_severe(_counted(run, numbers), details if examiner else 0)
    page = _Page(run, source, examiner, words, numbers, drawn, progress)
    path = run.folder / REPORT_NAME
    with replacing(path) as part, part.open("w", encoding="utf-8") as file:
        for piece in page.pieces():
            file.write(piece)
    return path


def most_severe(records: Iterable[ScreenRecord], count: int) -> list[tuple[int, ScreenRecord]]:
    """Return the most severe records, at most ``count``, each with its place in the run.

    They are flagged or, after all these, out of domain; clean and unreadable files are left out.
    They are sorted by verdict, then by p-value, then by distance. All records are read, whatever
    the count is.
    """
    shown = (
        (place, record)
        for place, record in enumerate(records)
        if record.verdict not in ("clean", "error")
    )
    # with a count of 0, nsmallest would not read the records
    return heapq.nsmallest(max(count, 1), shown, key=_gravity)[:count]


def _gravity(placed: tuple[int, ScreenRecord]) -> tuple[int, float, float]:
    _, record = placed
    p_value = 1.0 if record.p_value is None else record.p_value
    return _ORDER.index(record.verdict), p_value, -(record.distance or 0.0)


def _counted(run: ScreenedRun, numbers: Distributions) -> Iterator[ScreenRecord]:
    for record in run.files():
        numbers.add(record)
        yield record


@dataclass(frozen=True)
class _Page:
    """Fills the template of the page."""

    run: ScreenedRun
    source: Source | None
    examiner: Examiner | None
    words: Words
    numbers: Distributions
    drawn: list[tuple[int, ScreenRecord]]
    progress: Progress

    def pieces(self) -> Iterator[str]:
        """Yield the template with its placeholders filled; inserted text is never filled again."""
        script, style = _asset("report.js"), _asset("report.css")
        rows = Rows(self.run.folder, self.source, self.run.kind.details)
        parts: Mapping[str, Piece] = {
            "policy": lambda: [_policy(script, style)],
            "style": lambda: [style],
            "title": lambda: [html_text(f"Screening of {self.run.source.name}")],
            "source": lambda: [html_text(str(self.run.source))],
            "headline": lambda: [_headline(self.run.summary, self.words)],
            "notes": lambda: [_notes(self.run.summary)],
            "advice": lambda: [_advice(self.run.summary, self.words)],
            "charts": lambda: [self._charts()],
            "group": lambda: [html_text(self.words.group)],
            "groups": lambda: [html_text(self.words.groups.capitalize())],
            "provenance": lambda: [provenance_html(self.run, self.examiner)],
            "files": lambda: _json_lines(rows.of_file(record) for record in self.run.files()),
            "speakers": lambda: _json_lines(map(rows.of_speaker, self.run.speakers())),
            "head": lambda: [json_for_html(self._head(rows))],
            "details": self._details,
            "script": lambda: [script],
        }
        for place, text in enumerate(_MARK.split(_asset("report.html"))):
            yield from parts[text]() if place % 2 else [text]

    def _head(self, rows: Rows) -> dict[str, object]:
        """Return what the script must know about the rows, which precede it in the page."""
        return {
            "files": rows.columns,
            "speakers": SPEAKER_COLUMNS,
            "words": rows.words,
            "limits": self.numbers.limits,
            "verdicts": self.numbers.verdicts,
            "order": _ORDER,
            "drawn": len(self.drawn),
            "terms": {
                "group": self.words.group,
                "groups": self.words.groups.capitalize(),
                "same": self.words.same.removeprefix("the "),
                **_distance_terms(self.run),
            },
        }

    def _charts(self) -> str:
        judge = None if self.examiner is None else self.examiner.judge
        clean = None if judge is None else judge.calibration.detector.distances.tolist()
        what = self.words.clean
        responds = _responds(self.run)
        if responds:
            text = f"The distance is {_ODDS}; each 2.3 more mean ten times the odds. Red: flagged. "
            line = f"Line: windows of the calibration's clean {what}. " if clean else ""
            text += f"{line}Of each file the worst window counts."
        else:
            line = f"Line: the calibration's clean {what}. " if clean else ""
            text = f"Red: flagged as adversarial. {line}"
            text += "Files to the right of the threshold are unusual."
        if self.numbers.thresholds_differ:
            text += (
                " Each file has a threshold of its own, which depends on its number of windows and "
                "its band; the lowest and the highest are marked."
            )
        charts = (
            (f"Distance from {_harmless(self.run)}", text, self.numbers.distance_chart(clean)),
            (
                "p-values",
                "A file's p-value is the largest among all harmless conditions, so those of clean "
                "files lie towards 1; the line is where all bars would end if they were spread "
                f"evenly. Many small p-values (red) mean attacks, or another kind of {what}."
                if responds
                else "If all files were clean and like those of the calibration, all bars would "
                "reach the line. Many small p-values (red) mean attacks, or another kind of "
                f"{what}.",
                self.numbers.p_value_chart(),
            ),
            (
                "Does each file sound like its speaker's other files?",
                "Red: too different to be accepted as the same voice.",
                self.numbers.consistency_chart(),
            ),
        )
        return "".join(
            f"<figure><figcaption><b>{html_text(title)}</b> {html_text(text)}</figcaption>"
            f"{chart}</figure>"
            for title, text, chart in charts
            if chart is not None
        )

    def _details(self) -> Iterator[str]:
        for place, record in self.drawn:
            yield f'<template id="detail-{place}">{self._detail(record)}</template>\n'
            self.progress(record.id)

    def _detail(self, record: ScreenRecord) -> str:
        if self.examiner is None or self.source is None:
            return ""
        try:
            recording = self.source.find(record.id)
            return str(self.examiner.examine(record, recording).html())
        except KeyError:
            said = "This file could not be drawn, because the manifest no longer lists it."
        except FileError as err:
            said = f"This file could not be drawn: {err.found}. What to do: {err.remedy}."
        return f"<p>{html_text(said)}</p>"


def _responds(run: ScreenedRun) -> bool:
    """Tell whether files were judged by how a purifier responds to their windows."""
    return "window_s" in run.summary


def _harmless(run: ScreenedRun) -> str:
    """Return what distances are distances from."""
    return f"harmless {run.kind.words.clean}" if _responds(run) else f"clean {run.kind.words.clean}"


def _distance_terms(run: ScreenedRun) -> dict[str, str]:
    """Return in words what the distance and the p-value of this run's detector are."""
    what, responds = _harmless(run), _responds(run)
    largest = ", in the harmless condition in which it is largest" if responds else ""
    return {
        "distance": f"distance from {what}",
        "meaning": _ODDS if responds else "",
        "p_value": f"share of {what} that is at least as far off{largest}",
    }


def _asset(name: str) -> str:
    return resources.files("nip_audio.reporting").joinpath("page", name).read_text("utf-8")


def _policy(script: str, style: str) -> str:
    """Return a content security policy that allows no network and only the page's own script."""
    script_hash, style_hash = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (script, style)
    )
    return (
        f"default-src 'none'; script-src 'sha256-{script_hash}'; style-src 'sha256-{style_hash}'; "
        "img-src data:; media-src data:; base-uri 'none'; form-action 'none'"
    )


def _json_lines(rows: Iterable[list[object]]) -> Iterator[str]:
    yield "[\n"
    separator = ""
    for row in rows:
        yield separator + json_for_html(row)
        separator = ",\n"
    yield "\n]"


def _headline(summary: Mapping[str, Any], words: Words) -> str:
    files, flagged, failed = (int(summary[k]) for k in ("files", "flagged", "failed"))
    looks = "needs" if flagged == 1 else "need"
    text = f"<strong>{flagged:,}</strong> of {files:,} files {looks} attention"
    if failed:
        codes = ", ".join(
            f"{int(n):,} {code.replace('_', ' ')}" for code, n in summary["errors"].items()
        )
        whys = (
            f"{n:,} {v.replace('_', ' ')}" + (f": {codes}" if v == "error" and codes else "")
            for v in NOT_JUDGED
            if (n := summary["verdicts"].get(v))
        )
        text += f"; {failed:,} could not be judged ({html_text(', '.join(whys))})"
    speakers, whose = int(summary["speakers"]), int(summary["speakers_flagged"])
    text += f". {words.groups.capitalize()} with a flagged file: {whose:,} of {speakers:,}."
    expected = float(summary["expected_by_chance"])
    if summary["verdicts"].get("adversarial") and expected >= 0.5:
        text += (
            f" If all files were clean, about {expected:.0f} would still be called adversarial by "
            "chance."
        )
    return text


def _notes(summary: Mapping[str, Any]) -> str:
    notes = ""
    if summary.get("backdoor"):
        notes += f"<p>Backdoor triggers: {html_text(summary['backdoor'])}</p>"
    notes += "".join(f"<p>Note: {html_text(note)}</p>" for note in summary.get("notes", ()))
    if summary.get("warning"):
        notes += f'<p class="warning"><b>Note:</b> {html_text(summary["warning"])}</p>'
    if summary.get("incomplete") and not summary["failed"]:
        notes += "<p>Not everything was judged, so this run does not show that all is clean.</p>"
    return notes


def _advice(summary: Mapping[str, Any], words: Words) -> str:
    """Return the rows of the table that says what to do about each verdict."""
    verdicts = summary["verdicts"]
    rows = [
        f'<tr><td><span class="verdict {risk}">{risk.replace("_", " ")}</span></td>'
        f'<td class="number">{verdicts[risk]:,}</td><td>{html_text(remedy)}</td></tr>'
        for risk, remedy in words.remedies.items()
        if verdicts.get(risk)
    ]
    if verdicts.get("error"):
        rows.append(
            '<tr><td><span class="verdict error">error</span></td>'
            f'<td class="number">{verdicts["error"]:,}</td>'
            "<td>these files could not be read; the table below says why and what to do</td></tr>"
        )
    clean = verdicts.get("clean", 0)
    rows.append(
        '<tr><td><span class="verdict clean">clean</span></td>'
        f'<td class="number">{clean:,}</td><td>nothing to do; nothing was found, '
        "which does not prove that these files are harmless</td></tr>"
    )
    return "".join(rows)
