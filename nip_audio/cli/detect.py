"""The command ``nip-audio detect``, which judges single files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nip_audio.cli._console import exit_with, print_json, print_note
from nip_audio.cli._options import (
    CalibrationOption,
    ChannelOption,
    FprOption,
    JsonOption,
    MaxDurationOption,
    ModalityOption,
    ModelOption,
    SecretSeedOption,
)

__all__ = ["command"]


def command(
    files: Annotated[
        list[Path], typer.Argument(help="Recordings or images; each is judged on its own.")
    ],
    model: ModelOption = None,
    modality: ModalityOption = None,
    calibration: CalibrationOption = None,
    fpr: FprOption = None,
    seed: SecretSeedOption = None,
    max_duration: MaxDurationOption = None,
    channel: ChannelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Detect adversarial recordings or images by their response to noise.

    A file is flagged if the model's response to added noise differs from its
    response on clean files.

    Example: nip-audio detect a.wav b.flac --fpr 0.01
    """
    from nip_audio.audio.manifest import Recording
    from nip_audio.cli._inputs import load_model, make_screener
    from nip_audio.cli._results import print_judged_by, print_records
    from nip_audio.screening.pipeline import choose_seed

    screener = make_screener(
        load_model(model, modality),
        calibration,
        command="detect",
        fpr=fpr,
        seed=choose_seed(seed),
        max_duration_s=max_duration,
        channel=channel,
    )
    if screener.judge.note:
        print_note(screener.judge.note)
    records = list(screener.judge_files(Recording(str(file), file) for file in files))
    if as_json:
        print_json([record.to_json() | {"seed": screener.seed} for record in records])
    else:
        print_records(records)
        print_judged_by(screener)
    exit_with(sum(r.flagged for r in records), sum(r.failed for r in records))
