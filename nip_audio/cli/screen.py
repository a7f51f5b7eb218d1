"""``nip-audio screen``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nip_audio.audio.manifest import walk_audio
from nip_audio.cli._console import (
    DEFAULT_MODEL,
    CalibrationOption,
    JsonOption,
    MaxDurationOption,
    ModelOption,
    RateOption,
    SeedOption,
    advance,
    exit_with,
    make_screener,
    print_json,
    print_records,
    print_summary,
    progress_bar,
)

__all__ = ["command"]


def command(
    folder: Annotated[Path, typer.Argument(help="One sub-folder a speaker, or flat.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")],
    model: ModelOption = DEFAULT_MODEL,
    calibration: CalibrationOption = None,
    fpr: RateOption = 0.01,
    seed: SeedOption = 0,
    max_duration: MaxDurationOption = 120.0,
    as_json: JsonOption = False,
) -> None:
    """Screen a folder of enrolment audio; the same command continues an interrupted run.

    Writes results.jsonl (one record a file), summary.json and run.json into --out.

    Example: nip-audio screen enrolment/ --out report/
    """
    screener = make_screener(model, calibration, fpr=fpr, seed=seed, max_duration_s=max_duration)
    total = sum(1 for _ in walk_audio(folder))
    with progress_bar("screening", total) as bar:
        result = screener.screen(folder, out, progress=lambda _: advance(bar))
    if as_json:
        print_json(screener.identity() | result.summary.to_json())
    else:
        print_records(result.records)
        print_summary(result.summary, out)
    exit_with(result.records)


command.__name__ = "screen"
