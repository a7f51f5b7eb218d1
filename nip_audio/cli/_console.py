"""What the commands share: consoles, options, progress, and finding model and calibration."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.io import ReadSettings
from nip_audio.audio.manifest import Recording, read_manifest, walk_audio
from nip_audio.errors import AudioError, CalibrationError
from nip_audio.image.adapter import ImageAdapter
from nip_audio.models.plda import Plda
from nip_audio.models.pretrained import PretrainedModel, load_pretrained
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.judge import Judge
from nip_audio.screening.pipeline import Screener
from nip_audio.screening.records import ScreenRecord
from nip_audio.screening.summary import ScreenSummary

stderr = Console(stderr=True)
stdout = Console()

EXIT_FLAGGED, EXIT_FAILED = 1, 2
EXIT_USAGE, EXIT_REFUSED = 64, 65

DEFAULT_MODEL = "xvector-libri251"

ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="Model name, or a folder with a model card.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON (docs/json.md) instead of a table.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite an existing output.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of the noise.")]
RateOption = Annotated[
    float, typer.Option("--fpr", help="False positives on clean audio; more find more attacks.")
]
CalibrationOption = Annotated[
    Path | None,
    typer.Option("--calibration", "-c", help="Calibration file; default: the model's own."),
]
MaxDurationOption = Annotated[
    float, typer.Option("--max-duration", help="Refuse files longer than this many seconds.")
]
DataRootOption = Annotated[
    Path | None, typer.Option("--data-root", help="Replaces $data_root in a CSV manifest.")
]


def print_json(value: Any) -> None:
    """Print one JSON value on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False))


def make_adapter(pretrained: PretrainedModel, max_duration_s: float) -> WaveformAdapter:
    """Return how files are read for this model."""
    rate = pretrained.card.sample_rate_hz
    return WaveformAdapter(ReadSettings(sample_rate_hz=rate, max_duration_s=max_duration_s))


def make_reader(pretrained: PretrainedModel, max_duration_s: float) -> Callable[[Path], Tensor]:
    """Return how files become raw input of this model: samples of audio, pixels of pictures."""
    if pretrained.card.modality == "image":
        pictures = ImageAdapter(*pretrained.card.image_shape)
        return lambda path: pictures.load(path).pixels
    recordings = make_adapter(pretrained, max_duration_s)
    return lambda path: recordings.load(path).samples


def find_calibration(pretrained: PretrainedModel, path: Path | None) -> Calibration:
    """Load the calibration asked for, or the one that came with the model."""
    chosen = path or pretrained.card.calibration_path
    if chosen is None:
        raise CalibrationError(
            f"model {pretrained.card.name} comes without a calibration; make one with: nip-audio "
            "calibrate CLEAN_DIR --out my.calibration, and pass --calibration my.calibration"
        )
    return Calibration.load(chosen, model_id=pretrained.model_id)


def find_threshold(
    pretrained: PretrainedModel, path: Path | None, asked: float | None, plda: Plda | None = None
) -> float:
    """Return the verification threshold asked for, or the PLDA's, or the calibration's."""
    if plda is not None and path is not None:
        raise CalibrationError(
            "a calibration's threshold is a cosine, --plda scores by log-likelihood ratio; pass "
            "only one of --calibration and --plda"
        )
    if asked is not None:
        return asked
    if plda is not None:
        if plda.threshold is None:
            raise CalibrationError(
                "the PLDA has no threshold; pass --threshold, or fit it with --calibrate"
            )
        return plda.threshold
    calibrated = find_calibration(pretrained, path).verification_threshold
    if calibrated is None:
        raise CalibrationError(
            "the calibration knows no speaker twice, so it has no threshold; pass --threshold"
        )
    return calibrated


def make_screener(
    model: str, calibration: Path | None, *, fpr: float, seed: int, max_duration_s: float
) -> Screener:
    """Put together what detect and screen judge with."""
    pretrained = load_pretrained(model)
    judge = Judge(find_calibration(pretrained, calibration), fpr)
    return Screener(pretrained, judge, make_adapter(pretrained, max_duration_s), seed)


def find_recordings(source: Path, data_root: Path | None) -> list[Recording]:
    """List a folder's recordings, or a CSV manifest's."""
    if source.suffix.lower() == ".csv":
        return read_manifest(source, data_root=data_root)
    return list(walk_audio(source))


@contextmanager
def progress_bar(what: str, total: int | None) -> Iterator[Progress]:
    """Show a bar on standard error; yields it with one task."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr) as bar:
        bar.add_task(what, total=total)
        yield bar


@contextmanager
def evaluation_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show the cell that an evaluation is at."""
    with progress_bar("loading models and clips", None) as bar:
        yield lambda cell, done, total: bar.update(
            bar.task_ids[0], description=cell, completed=done, total=total
        )


def advance(bar: Progress) -> None:
    """Advance a bar's one task by one."""
    bar.advance(bar.task_ids[0])


_COLOURS = {"clean": "green", "adversarial": "red", "inconsistent": "magenta", "error": "yellow"}
_ROWS = 40


def print_left_out(failures: Sequence[AudioError]) -> None:
    """Name the files that could not be used, and why."""
    for failure in failures:
        stderr.print(f"left out: {failure}", markup=False, highlight=False, soft_wrap=True)


def print_records(records: Sequence[ScreenRecord]) -> None:
    """Print a table: everything in a short list, what needs attention in a long one."""
    shown = [r for r in records if r.verdict != "clean"] if len(records) > _ROWS else list(records)
    table = Table(box=SIMPLE)
    table.add_column("file", overflow="fold", min_width=24)
    for name in ("verdict", "distance", "p", "consistency"):
        table.add_column(name, no_wrap=True)
    for record in shown[:_ROWS]:
        numbers = (
            (record.distance, ".1f"),
            (record.p_value, ".3f"),
            (record.consistency, ".2f"),
        )
        table.add_row(
            plain(record.id),
            f"[{_COLOURS.get(record.verdict, 'cyan')}]{record.verdict}[/]",
            *("–" if value is None else f"{value:{form}}" for value, form in numbers),
        )
    if shown:
        stdout.print(table)
    for record in shown[:_ROWS]:
        for reason in record.reasons:
            stdout.print(f"[bold]{plain(record.id)}[/]: {plain(reason)}", highlight=False)
    if any(record.verdict == "clean" for record in records):
        stdout.print("clean: nothing was found; that is no proof (README.md)", style="dim")
    if len(shown) > _ROWS:
        stdout.print(f"… and {len(shown) - _ROWS} more that are not clean: see results.jsonl")


def print_summary(summary: ScreenSummary, out: Path) -> None:
    """Print the counts, and the warning if there is one."""
    counts = ", ".join(f"{number} {verdict}" for verdict, number in summary.verdicts.items())
    stdout.print(
        f"{summary.files} files: {counts or 'none'}. Records: {plain(str(out))}/results.jsonl"
    )
    if summary.warning:
        stdout.print(f"[bold yellow]Note:[/] {plain(summary.warning)}", soft_wrap=True)


def plain(text: str) -> str:
    """Keep rich from reading markup into names, and control characters off the terminal."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return escape(shown)


def exit_with(records: Sequence[ScreenRecord]) -> None:
    """End the command: 2 if files failed, 1 if any was flagged, else 0."""
    if any(record.verdict == "error" for record in records):
        raise typer.Exit(EXIT_FAILED)
    if any(record.flagged for record in records):
        raise typer.Exit(EXIT_FLAGGED)
