"""What the commands share: consoles, options, progress, and finding model and calibration."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.io import ReadSettings
from nip_audio.audio.manifest import Recording, read_recordings, walk_audio, walk_files
from nip_audio.errors import CalibrationError, FileError, InputError
from nip_audio.image.adapter import IMAGE_SUFFIXES, ImageAdapter
from nip_audio.models.plda import Plda
from nip_audio.models.pretrained import PretrainedModel, load_pretrained
from nip_audio.reporting.examine import Examiner
from nip_audio.reporting.export import write_csv
from nip_audio.reporting.picture_examine import ImageExaminer
from nip_audio.reporting.report import write_report
from nip_audio.reporting.run import ScreenedRun
from nip_audio.screening.calibration import Calibration, choose_calibration
from nip_audio.screening.engines.base import Engine
from nip_audio.screening.engines.local import LocalEngine
from nip_audio.screening.judge import Judge
from nip_audio.screening.kinds import Images
from nip_audio.screening.pipeline import Screener, ScreenResult
from nip_audio.screening.reading import Kind
from nip_audio.screening.records import ImageRecord, ScreenRecord
from nip_audio.screening.sources import FolderSource, ManifestSource, Source
from nip_audio.screening.summary import ScreenSummary

stderr = Console(stderr=True)
stdout = Console()

EXIT_FLAGGED, EXIT_FAILED = 1, 2
EXIT_USAGE, EXIT_REFUSED, EXIT_DEFECT = 64, 65, 70

DEFAULT_MODEL = "xvector-libri251"
DEFAULT_PICTURE_MODEL = "lenet5-mnist"


class Modality(StrEnum):
    """What a model takes."""

    audio = "audio"
    image = "image"


ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="Model name, or a folder with a model card.")
]
EitherModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help=f"Model name, or a folder with a model card; default: {DEFAULT_MODEL}, with "
        f"--modality image {DEFAULT_PICTURE_MODEL}.",
    ),
]
ModalityOption = Annotated[
    Modality | None,
    typer.Option(
        "--modality",
        help="Refuse a model that takes anything else; default: whatever the model takes.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON (docs/json.md) instead of a table.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite an existing output.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of the noise.")]
RateOption = Annotated[
    float, typer.Option("--fpr", help="False positives on clean audio; more find more attacks.")
]
CalibrationOption = Annotated[
    Path | None,
    typer.Option("--calibration", "-c", help="Calibration file; default: the model's own."),
]
MaxDurationOption = Annotated[
    float | None,
    typer.Option(
        "--max-duration", help="Refuse recordings longer than this many seconds; default: 120."
    ),
]
DataRootOption = Annotated[
    str | None,
    typer.Option(
        "--data-root",
        help="Folder or URL: replaces $data_root in a manifest, whose files may lie below it.",
    ),
]
FollowLinksOption = Annotated[
    bool,
    typer.Option("--follow-links", help="Read what links lead to outside of the source as well."),
]


def print_json(value: Any) -> None:
    """Print one JSON value on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False))


def load_model(model: str | None, modality: Modality | None) -> PretrainedModel:
    """Load the model asked for, or the default one of a modality.

    Raises:
        InputError: As ``require_modality``.
    """
    default = DEFAULT_PICTURE_MODEL if modality is Modality.image else DEFAULT_MODEL
    pretrained = load_pretrained(default if model is None else model)
    require_modality(pretrained, modality)
    return pretrained


def require_modality(pretrained: PretrainedModel, modality: Modality | None) -> None:
    """Refuse a model of another modality than the one asked for.

    Raises:
        InputError: If it is one.
    """
    takes = pretrained.card.modality
    if modality is not None and takes != modality.value:
        raise InputError(
            f"{pretrained.card.name} is of modality {takes}, asked for was {modality.value}; "
            "choose another --model (nip-audio models lists them)"
        )


def make_adapter(pretrained: PretrainedModel, max_duration_s: float | None) -> WaveformAdapter:
    """Return how recordings are read for this model."""
    rate = pretrained.card.sample_rate_hz
    settings = ReadSettings(sample_rate_hz=rate)
    if max_duration_s is not None:
        settings = replace(settings, max_duration_s=max_duration_s)
    return WaveformAdapter(settings)


def make_reader(
    pretrained: PretrainedModel, max_duration_s: float | None
) -> WaveformAdapter | ImageAdapter:
    """Return how files of the kind that this model takes are read."""
    if pretrained.card.modality == "image":
        return ImageAdapter(*pretrained.card.image_shape)
    return make_adapter(pretrained, max_duration_s)


def refuse_of_audio(pretrained: PretrainedModel, given: Mapping[str, object]) -> None:
    """Refuse options that say nothing of pictures, where the model takes pictures.

    Args:
        pretrained: The model.
        given: By the option's name its value; None are those not given.

    Raises:
        InputError: If one is given.
    """
    named = [name for name, value in given.items() if value is not None]
    if named and pretrained.card.modality == "image":
        raise InputError(
            f"{pretrained.card.name} takes pictures and got {', '.join(named)}, expected no option "
            "that is for audio alone; leave it out"
        )


def find_calibration(pretrained: PretrainedModel, path: Path | None) -> Calibration:
    """Load the calibration asked for, or the one that came with the model."""
    chosen = choose_calibration(pretrained, path)
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
        if not math.isfinite(asked):
            raise InputError(f"--threshold is {asked}, expected a number, e.g. a cosine of 0.4")
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
    pretrained: PretrainedModel,
    calibration: Path | None,
    *,
    fpr: float,
    fdr: float | None = None,
    seed: int,
    max_duration_s: float | None,
    engine: Engine | None = None,
) -> Screener:
    """Put together what detect and screen judge with."""
    refuse_of_audio(pretrained, {"--max-duration": max_duration_s})
    judge = Judge(find_calibration(pretrained, calibration), fpr, fdr)
    adapter = make_reader(pretrained, max_duration_s)
    return Screener(pretrained, judge, adapter, seed, engine or LocalEngine())


def find_source(kind: Kind, source: Path, data_root: str | None, *, follow_links: bool) -> Source:
    """Return a folder, or a manifest of recordings, as something to screen.

    Raises:
        InputError: If pictures do not come as a folder.
    """
    if isinstance(kind, Images) and (data_root is not None or not source.is_dir()):
        raise InputError(
            f"pictures are screened as a folder, got {source}"
            f"{'' if data_root is None else ' and --data-root'}; give the folder that holds them"
        )
    if source.is_dir() or not source.suffix:
        return FolderSource(source, follow_links, kind.suffixes)
    recordings = read_recordings(source, data_root=data_root, follow_links=follow_links)
    return ManifestSource(source, recordings)


def find_recordings(source: Path, data_root: str | None, *, follow_links: bool) -> list[Recording]:
    """List a folder's recordings, or a manifest's."""
    if source.is_dir() or not source.suffix:
        return list(walk_audio(source, follow_links=follow_links))
    return read_recordings(source, data_root=data_root, follow_links=follow_links)


def find_files(
    pretrained: PretrainedModel, source: Path, data_root: str | None, *, follow_links: bool
) -> list[Recording]:
    """List the files of the kind that a model takes: a folder's, or a manifest's recordings.

    Raises:
        InputError: If pictures do not come as a folder, or recordings neither as that nor as a
            manifest.
    """
    if pretrained.card.modality == "image":
        refuse_of_audio(pretrained, {"--data-root": data_root})
        return list(walk_files(source, IMAGE_SUFFIXES, follow_links=follow_links))
    return find_recordings(source, data_root, follow_links=follow_links)


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


def make_report(
    run: ScreenedRun,
    source: Source,
    examiner: Examiner | ImageExaminer | None,
    *,
    details: int = 50,
) -> list[Path]:
    """Write the page of a run and its table; return where they lie."""
    flagged = min(details, run.summary["flagged"])
    with progress_bar("drawing", flagged) as bar:
        page = write_report(run, source, examiner, details=details, progress=lambda _: advance(bar))
    return [page, write_csv(run)]


_COLOURS = {"clean": "green", "adversarial": "red", "inconsistent": "magenta", "error": "yellow"}
_ROWS = 40


def print_left_out(failures: Sequence[FileError]) -> None:
    """Name the files that could not be used, and why."""
    for failure in failures:
        stderr.print(f"left out: {failure}", markup=False, highlight=False, soft_wrap=True)


def print_results(result: ScreenResult) -> None:
    """Print the first records of a screening that need attention."""
    attention = result.summary.flagged + result.summary.failed
    few = result.summary.files <= _ROWS
    shown = islice((r for r in result.results.files() if few or r.verdict != "clean"), _ROWS)
    print_records(list(shown))
    if not few and attention > _ROWS:
        stdout.print(f"… and {attention - _ROWS} more that are not clean: see results.jsonl")


def print_records(records: Sequence[ScreenRecord]) -> None:
    """Print a table, and below it what was found."""
    of_images = any(isinstance(record, ImageRecord) for record in records)
    table = Table(box=SIMPLE)
    table.add_column("file", overflow="fold", min_width=24)
    for name in ("verdict", "distance", "p", "named" if of_images else "consistency"):
        table.add_column(name, no_wrap=True)
    for record in records:
        last = (
            record.named or "–"
            if isinstance(record, ImageRecord)
            else _number(record.consistency, ".2f")
        )
        table.add_row(
            plain(record.id),
            f"[{_COLOURS.get(record.verdict, 'cyan')}]{record.verdict}[/]",
            _number(record.distance, ".2f"),
            _number(record.p_value, ".3f"),
            plain(last),
        )
    if records:
        stdout.print(table)
    for record in records:
        for why in record.why:
            stdout.print(f"[bold]{plain(record.id)}[/]: {plain(why)}", highlight=False)
    if any(record.verdict == "clean" for record in records):
        stdout.print("clean: nothing was found; that is no proof (README.md)", style="dim")


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}"


def print_summary(summary: ScreenSummary, out: Path) -> None:
    """Print the counts, and the warning if there is one."""
    counts = ", ".join(f"{number} {verdict}" for verdict, number in summary.verdicts.items())
    stdout.print(
        f"{summary.files} files: {counts or 'none'}. Records: {plain(str(out))}/results.jsonl"
    )
    if summary.verdicts.get("adversarial") and summary.expected_by_chance >= 0.5:
        stdout.print(
            f"If all were clean, about {summary.expected_by_chance:.0f} would be called adversarial"
            " by chance; --fdr 0.1 flags only what stands out of that",
            style="dim",
        )
    if summary.backdoor:
        stdout.print(f"Backdoor triggers: {plain(summary.backdoor)}", soft_wrap=True)
    if summary.warning:
        stdout.print(f"[bold yellow]Note:[/] {plain(summary.warning)}", soft_wrap=True)


def plain(text: str) -> str:
    """Keep rich from reading markup into names, and control characters off the terminal."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return escape(shown)


def exit_with(flagged: int, failed: int) -> None:
    """End the command: 2 if files failed, 1 if any was flagged, else 0."""
    if failed:
        raise typer.Exit(EXIT_FAILED)
    if flagged:
        raise typer.Exit(EXIT_FLAGGED)
