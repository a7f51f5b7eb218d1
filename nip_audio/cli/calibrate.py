"""``nip-audio calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nip_audio.cli._console import (
    DEFAULT_MODEL,
    EXIT_FAILED,
    DataRootOption,
    FollowLinksOption,
    ForceOption,
    JsonOption,
    MaxDurationOption,
    ModelOption,
    SeedOption,
    advance,
    find_recordings,
    make_adapter,
    print_json,
    print_left_out,
    progress_bar,
    stderr,
    stdout,
)
from nip_audio.cli._pictures import calibrate_on_pictures
from nip_audio.models.pretrained import load_pretrained
from nip_audio.screening.calibration import calibrate
from nip_audio.screening.measure import default_config

__all__ = ["command"]


def command(
    source: Annotated[list[Path], typer.Argument(help="Folders of clean audio, or CSV manifests.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Calibration file to write.")],
    model: ModelOption = DEFAULT_MODEL,
    data_root: DataRootOption = None,
    follow_links: FollowLinksOption = False,
    describe: Annotated[str, typer.Option(help="What this audio is, for the record.")] = "",
    tolerate_noise: Annotated[
        float | None,
        typer.Option(help="Noise up to this rms (full scale is 1) shall be no alarm, e.g. 0.01."),
    ] = None,
    names: Annotated[
        bool | None,
        typer.Option(
            help="Judge by the name the model gives (its own speakers), or by the voice (anybody)."
            " Default: by name where the model scores its speakers by logits."
        ),
    ] = None,
    draws: Annotated[int, typer.Option(help="Noise draws a file and kind of noise.")] = 1,
    seed: SeedOption = 0,
    max_duration: MaxDurationOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Learn what clean audio of your own looks like to a model.

    At least 20 different recordings are needed, which allow --fpr 0.05; 99 allow 0.01. With one
    sub-folder a speaker, and two recordings of some, voices can be compared too. A file that was
    tampered with must not be among them.

    Example: nip-audio calibrate clean/ --out my.calibration
    """
    pretrained = load_pretrained(model)
    if pretrained.card.modality == "image":
        calibrate_on_pictures(
            pretrained, source, out, draws=draws, seed=seed, force=force, as_json=as_json
        )
        return
    parts = (find_recordings(part, data_root, follow_links=follow_links) for part in source)
    recordings = [recording for part in parts for recording in part]
    with progress_bar("calibrating", len(recordings)) as bar:
        result = calibrate(
            pretrained,
            recordings,
            make_adapter(pretrained, max_duration),
            default_config(pretrained, draws=draws),
            names=names,
            seed=seed,
            tolerated_noise_rms=tolerate_noise,
            sources=describe or ", ".join(part.name for part in source),
            progress=lambda _: advance(bar),
        )
    result.save(out, force=force)
    print_left_out(result.failures)
    used = len(result.distances)
    if as_json:
        failed = [str(failure) for failure in result.failures]
        print_json({"out": str(out), "files": used, "failed": failed, "model_id": result.model_id})
    else:
        stdout.print(
            f"{used} files, allowing a false-positive rate of {1 / (used + 1):.2%}: {out}",
            markup=False,
            soft_wrap=True,
        )
    if result.verification_threshold is None:
        stderr.print(
            "no speaker has two recordings: no threshold for verify, no check for inconsistent "
            "files; use one sub-folder a speaker"
        )
    if result.failures:
        raise typer.Exit(EXIT_FAILED)


command.__name__ = "calibrate"
