"""``nip-audio detect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nip_audio.cli._console import exit_with, print_json
from nip_audio.cli._options import (
    CalibrationOption,
    EitherModelOption,
    JsonOption,
    MaxDurationOption,
    ModalityOption,
    RateOption,
    SeedOption,
)

__all__ = ["command"]


def command(
    files: Annotated[
        list[Path], typer.Argument(help="Recordings, or pictures, to judge, each by itself.")
    ],
    model: EitherModelOption = None,
    modality: ModalityOption = None,
    calibration: CalibrationOption = None,
    fpr: RateOption = 0.01,
    seed: SeedOption = 0,
    max_duration: MaxDurationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell which recordings, or pictures, react to noise as clean ones do not.

    Example: nip-audio detect a.wav b.flac --fpr 0.01
    """
    from nip_audio.audio.manifest import Recording
    from nip_audio.cli._inputs import load_model, make_screener
    from nip_audio.cli._results import print_records

    screener = make_screener(
        load_model(model, modality),
        calibration,
        fpr=fpr,
        seed=seed,
        max_duration_s=max_duration,
    )
    records = list(screener.judge_files(Recording(str(file), file) for file in files))
    if as_json:
        print_json([record.to_json() for record in records])
    else:
        print_records(records)
    exit_with(sum(r.flagged for r in records), sum(r.verdict == "error" for r in records))
