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
    find_calibration,
    make_adapter,
    print_json,
    print_records,
    print_summary,
    progress_bar,
)
from nip_audio.models.pretrained import load_pretrained
from nip_audio.screening.judge import Judge
from nip_audio.screening.pipeline import Screener

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
    pretrained = load_pretrained(model)
    judge = Judge(find_calibration(pretrained, calibration), fpr)
    screener = Screener(pretrained, judge, make_adapter(pretrained, max_duration), seed)
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
