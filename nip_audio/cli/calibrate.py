"""The command ``nip-audio calibrate``, which fits a calibration to clean files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nip_audio.cli._console import advance, print_json, print_skipped, progress_bar, stderr, stdout
from nip_audio.cli._exit import EXIT_FAILED
from nip_audio.cli._options import (
    ADVANCED,
    DataRootOption,
    FollowLinksOption,
    ForceOption,
    JsonOption,
    MaxDurationOption,
    ModalityOption,
    ModelOption,
    SeedOption,
)

__all__ = ["command"]


def command(
    source: Annotated[
        list[Path],
        typer.Argument(help="Folders of clean recordings or images, or manifests of recordings."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Calibration file to write.")],
    model: ModelOption = None,
    modality: ModalityOption = None,
    data_root: DataRootOption = None,
    follow_links: FollowLinksOption = False,
    describe: Annotated[
        str, typer.Option(help="Description of the files, stored in the calibration.")
    ] = "",
    tolerate_noise: Annotated[
        float | None,
        typer.Option(
            help="Audio only: noise up to this rms (full scale is 1) is to raise no alarm, e.g. "
            "0.01.",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    names: Annotated[
        bool | None,
        typer.Option(
            help="Audio only: judge by the model's prediction (for its own speakers) or by the "
            "embedding (for any speaker). Default: by the prediction, if the model has logits.",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    draws: Annotated[
        int,
        typer.Option(help="Noise draws per file and kind of noise.", rich_help_panel=ADVANCED),
    ] = 1,
    seed: SeedOption = 0,
    max_duration: MaxDurationOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Calibrate the detector on clean recordings or images of your own.

    At least 20 different files are needed, which allow --fpr 0.05; 99 files
    allow 0.01. With one sub-folder per speaker and two recordings of some
    speakers, the voices of a speaker's files can be compared too. All files
    must be genuine: an attacked one would be learned as clean.

    Example: nip-audio calibrate clean/ --out my.calibration
    """
    from nip_audio.cli._inputs import find_files, load_model, make_reader, refuse_options
    from nip_audio.core.state import require_new
    from nip_audio.models.adopted import attach_companion
    from nip_audio.screening.calibrating import calibrate
    from nip_audio.screening.measure import default_config
    from nip_audio.screening.modalities import KINDS

    require_new(out, force=force)
    pretrained = load_model(model, modality)
    given = {"--tolerate-noise": tolerate_noise, "--max-duration": max_duration}
    refuse_options(pretrained, "calibrate", given | {"--names or --no-names": names})
    parts = (find_files(pretrained, part, data_root, follow_links=follow_links) for part in source)
    files = [file for part in parts for file in part]
    sources = describe or ", ".join(part.name for part in source)
    with progress_bar("calibrating", len(files)) as bar:
        result = calibrate(
            pretrained,
            files,
            make_reader(pretrained, max_duration),
            default_config(pretrained, draws=draws),
            names=names,
            seed=seed,
            tolerated_noise_rms=tolerate_noise,
            sources=sources,
            progress=lambda _: advance(bar),
        )
    result.save(out, force=force)
    attached = attach_companion(pretrained.card, "calibration", out)
    print_skipped(result.failures)
    used = len(result.distances)
    if as_json:
        failed = [str(failure) for failure in result.failures]
        print_json({"out": str(out), "files": used, "failed": failed, "model_id": result.model_id})
    else:
        stdout.print(
            f"calibrated on {used} files, which allow a false-positive rate of "
            f"{1 / (used + 1):.2%} or more: {out}",
            markup=False,
            soft_wrap=True,
        )
        if attached:
            stdout.print(f"{pretrained.card.directory} uses it by default", markup=False)
    if note := KINDS[result.tag].calibration_note(result):
        stderr.print(note)
    if result.failures:
        raise typer.Exit(EXIT_FAILED)
