"""``nip-audio screen``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nip_audio.cli._console import (
    advance,
    exit_with,
    plain,
    print_json,
    print_left_out,
    progress_bar,
    stderr,
)
from nip_audio.cli._options import (
    CalibrationOption,
    DataRootOption,
    EitherModelOption,
    FollowLinksOption,
    JsonOption,
    MaxDurationOption,
    ModalityOption,
    RateOption,
    SeedOption,
)
from nip_audio.errors import InputError

if TYPE_CHECKING:
    from nip_audio.screening.pipeline import Screener, ScreenResult
    from nip_audio.screening.sources import Source


__all__ = ["command"]


class EngineName(StrEnum):
    """Where files are measured."""

    LOCAL = "local"
    RAY = "ray"


def command(
    source: Annotated[
        Path,
        typer.Argument(
            help="One sub-folder a speaker (of pictures: a kind), flat, or a manifest of audio."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")],
    model: EitherModelOption = None,
    modality: ModalityOption = None,
    calibration: CalibrationOption = None,
    fpr: RateOption = 0.01,
    fdr: Annotated[
        float | None,
        typer.Option(
            help="Flag so that about this share of the flagged is clean, instead of --fpr."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that measure; default: one a core.")
    ] = None,
    engine: Annotated[
        EngineName, typer.Option(help="Where: in processes here, or on a Ray cluster.")
    ] = EngineName.LOCAL,
    backdoor: Annotated[
        bool,
        typer.Option(
            "--backdoor",
            help="Look for backdoor triggers, too (the model must know"
            " these files: see nip-audio backdoor).",
        ),
    ] = False,
    purify_to: Annotated[
        Path | None,
        typer.Option(
            "--purify-flagged",
            help="Write a purified copy of each adversarial file into this folder.",
        ),
    ] = None,
    watch: Annotated[
        float | None, typer.Option(help="Go on, looking for new files every so many seconds.")
    ] = None,
    report: Annotated[
        bool, typer.Option(help="Write report.html and results.csv, too (see nip-audio report).")
    ] = True,
    data_root: DataRootOption = None,
    follow_links: FollowLinksOption = False,
    seed: SeedOption = 0,
    max_duration: MaxDurationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Screen enrolment audio, or pictures; the same command continues an interrupted run.

    Writes results.jsonl (one record a file), speakers.jsonl and summary.json into --out, and
    report.html to look at. To judge at another rate, or with files added or changed, start it
    again: only what is new is measured. Whether audio or pictures are read follows from the model.

    Example: nip-audio screen enrolment/ --out report/
    """
    from nip_audio.cli._inputs import find_source, load_model, make_screener
    from nip_audio.cli._results import make_report, print_results, print_summary
    from nip_audio.core.state import make_folder
    from nip_audio.reporting.examiners import examiner_of_screening
    from nip_audio.reporting.run import ScreenedRun
    from nip_audio.screening.engines.local import LocalEngine
    from nip_audio.screening.engines.ray import RayEngine

    if watch is not None and not 0 <= watch < float("inf"):
        raise InputError(f"--watch is {watch}, expected seconds, e.g. 10")
    if purify_to is not None:
        make_folder(purify_to)
    screener = make_screener(
        load_model(model, modality),
        calibration,
        fpr=fpr,
        fdr=fdr,
        seed=seed,
        max_duration_s=max_duration,
        engine=LocalEngine(workers) if engine is EngineName.LOCAL else RayEngine(workers or 2),
    )
    screener = replace(screener, backdoor=backdoor)
    recordings = find_source(screener.kind, source, data_root, follow_links=follow_links)
    total = None if watch is not None else sum(1 for _ in recordings)
    with progress_bar("screening", total) as bar:
        tick = lambda _: advance(bar)  # noqa: E731
        if watch is None:
            result = screener.screen(recordings, out, progress=tick)
        else:
            for result in screener.watch(recordings, out, looks=_every(watch), progress=tick):
                print_summary(result.summary, out)
            return
    if report:
        make_report(ScreenedRun.open(out), recordings, examiner_of_screening(screener))
    if purify_to is not None:
        _purify(screener, recordings, result, purify_to)
    if as_json:
        print_json(screener.verdict_settings() | result.summary.to_json())
    else:
        print_results(result)
        print_summary(result.summary, out)
    exit_with(result.summary.flagged, result.summary.failed)


def _purify(screener: Screener, source: Source, result: ScreenResult, out: Path) -> None:
    from nip_audio.image.adapter import ImageAdapter
    from nip_audio.workflows.flagged import (
        purify_flagged,
        purify_flagged_images,
        shipped_purifier,
    )
    from nip_audio.workflows.purify_files import FilePurifier

    pretrained, adapter, seed = screener.pretrained, screener.adapter, screener.seed
    purifier = shipped_purifier(pretrained)
    adversarial = result.summary.verdicts.get("adversarial", 0)
    with progress_bar("purifying", adversarial) as bar:
        tick = lambda: advance(bar)  # noqa: E731
        if isinstance(adapter, ImageAdapter):
            run = purify_flagged_images(
                result.results, source, pretrained, purifier, out, seed=seed, progress=tick
            )
        else:
            files = FilePurifier(pretrained, purifier, adapter, seed, screener.judge)
            run = purify_flagged(result.results, source, files, out, progress=tick)
    print_left_out(run.failures)
    stderr.print(
        f"{len(run.done) + run.earlier} purified copies in {plain(str(out))}, each with a JSON of "
        "what changed; examine one before you use it",
        soft_wrap=True,
    )


def _every(seconds: float) -> Iterator[None]:
    while True:
        yield
        time.sleep(seconds)
