"""Print the results of a screening, and write its report."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.table import Table

from nip_audio.cli._console import advance, plain, progress_bar, stdout
from nip_audio.screening.records import ScreenRecord

if TYPE_CHECKING:
    from nip_audio.reporting.examine import Examiner
    from nip_audio.reporting.run import ScreenedRun
    from nip_audio.screening.pipeline import Screener, ScreenResult
    from nip_audio.screening.sources import Source
    from nip_audio.screening.summary import ScreenSummary

_COLOURS = {"clean": "green", "adversarial": "red", "inconsistent": "magenta", "error": "yellow"}
_DECISIONS = {"enrol": "green", "record more": "yellow", "reject": "red", "ask": "magenta"}
_DETAILS = {"consistency": "consistency", "named": "prediction"}
ROWS = 40


def print_results(result: ScreenResult) -> None:
    """Print the first records that need attention; of small runs, all records."""
    attention = result.summary.flagged + result.summary.failed
    few = result.summary.files <= ROWS
    shown = islice((r for r in result.results.files() if few or r.verdict != "clean"), ROWS)
    print_records(list(shown))
    if not few and attention > ROWS:
        stdout.print(f"… and {attention - ROWS} more files that are not clean: see results.jsonl")


def print_records(records: Sequence[ScreenRecord]) -> None:
    """Print a table of the records, and their findings below it."""
    table = Table(box=SIMPLE)
    table.add_column("file", overflow="fold", min_width=24)
    detail = _DETAILS[records[0].details.shown] if records else ""
    for name in ("verdict", "distance", "p-value", detail):
        table.add_column(name, no_wrap=True)
    for record in records:
        value = getattr(record.details, record.details.shown)
        table.add_row(
            plain(record.id),
            f"[{_COLOURS.get(record.verdict, 'cyan')}]{record.verdict}[/]",
            _number(record.distance, ".2f"),
            _number(record.p_value, ".3f"),
            plain(value if isinstance(value, str) else _number(value, ".2f")),
        )
    if records:
        stdout.print(table)
    for record in records:
        for why in record.why:
            stdout.print(f"[bold]{plain(record.id)}[/]: {plain(why)}", highlight=False)
    if any(record.verdict == "clean" for record in records):
        stdout.print(
            "clean: nothing was found, which is no proof that a file is harmless", style="dim"
        )


def print_speakers(result: ScreenResult) -> None:
    """Print what the enrolment gate says about the first speakers, if there was one."""
    if result.summary.gated is None:
        return
    table = Table(box=SIMPLE)
    table.add_column("speaker", overflow="fold", min_width=12)
    for name in ("usable", "speech", "cohesion"):
        table.add_column(name, no_wrap=True)
    table.add_column("decision", overflow="fold")
    speakers = ((one, one.gate) for one in result.results.speakers() if one.gate is not None)
    for speaker, gate in islice(speakers, ROWS):
        between = f" [{_number(gate.cohesion_low, '.2f')}, {_number(gate.cohesion_high, '.2f')}]"
        table.add_row(
            plain(speaker.speaker),
            f"{gate.recordings} of {speaker.files}",
            f"{gate.speech_s:.1f} s",
            _number(gate.cohesion, ".2f") + plain("" if gate.cohesion_low is None else between),
            f"[{_DECISIONS[gate.decision]}]{gate.decision}[/]: {plain(gate.why)}",
        )
    if table.row_count:
        stdout.print(table)
    if result.summary.speakers > ROWS:
        stdout.print(f"… and {result.summary.speakers - ROWS} more speakers: see speakers.jsonl")


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}"


def print_judged_by(screener: Screener) -> None:
    """Print which model and calibration have judged, with the hashes of their contents."""
    card, found = screener.pretrained.card, screener.judged_by()
    model = screener.pretrained.model_id
    whose = "as shipped with nip-audio" if card.shipped else f"card {found['card'][:12]}"
    rest = [f"{name} {found[name][:12]}" for name in ("calibration", "purifier") if name in found]
    stdout.print(
        f"Judged by {plain(card.name)} (model {model[:12]}, {whose}), {', '.join(rest)}, "
        f"seed {screener.seed}",
        style="dim",
        highlight=False,
        soft_wrap=True,
    )


def print_summary(summary: ScreenSummary, out: Path) -> None:
    """Print the number of files per verdict, and the warning if there is one."""
    counts = ", ".join(f"{number} {verdict}" for verdict, number in summary.verdicts.items())
    stdout.print(
        f"{summary.files} files: {counts or 'none'}. Records: {plain(str(out))}/results.jsonl"
    )
    if summary.failed:
        whys = ", ".join(f"{number} {why}" for why, number in summary.not_judged.items())
        stdout.print(
            f"{summary.failed} of them could not be judged ({plain(whys)}), and so are neither "
            "flagged nor clean",
            soft_wrap=True,
        )
    if summary.verdicts.get("adversarial") and summary.expected_by_chance >= 0.5:
        stdout.print(
            f"If every file were clean, about {summary.expected_by_chance:.0f} would be flagged as "
            "adversarial by chance; pass --fdr 0.1 to flag only files beyond that",
            style="dim",
        )
    for note in summary.notes:
        stdout.print(f"Note: {plain(note)}", highlight=False, soft_wrap=True)
    if summary.backdoor:
        stdout.print(f"Backdoor triggers: {plain(summary.backdoor)}", soft_wrap=True)
    if summary.warning:
        stdout.print(f"[bold yellow]Note:[/] {plain(summary.warning)}", soft_wrap=True)
    if summary.incomplete and not summary.failed:
        stdout.print("Not everything was judged, so this run does not show that all is clean")


def make_report(
    run: ScreenedRun,
    source: Source | None,
    examiner: Examiner | None,
    *,
    details: int = 50,
) -> list[Path]:
    """Write the report and the table of a run; return their paths."""
    from nip_audio.reporting.export import write_csv
    from nip_audio.reporting.report import write_report

    drawn = min(details, run.drawable)
    with progress_bar("writing the report", drawn) as bar:
        page = write_report(run, source, examiner, details=details, progress=lambda _: advance(bar))
    return [page, write_csv(run)]
