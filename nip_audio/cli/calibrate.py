"""``nip-audio calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nip_audio.cli._console import advance, print_json, print_left_out, progress_bar, stderr, stdout
from nip_audio.cli._exit import EXIT_FAILED
from nip_audio.cli._options import (
    DataRootOption,
    EitherModelOption,
    FollowLinksOption,
    ForceOption,
    JsonOption,
    MaxDurationOption,
    ModalityOption,
    SeedOption,
)

__all__ = ["command"]


def command(
    source: Annotated[
        list[Path],
        typer.Argument(help="Folders of clean audio or pictures, or CSV manifests of audio."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Calibration file to write.")],
    model: EitherModelOption = None,
    modality: ModalityOption = None,
    data_root: DataRootOption = None,
    follow_links: FollowLinksOption = False,
    describe: Annotated[str, typer.Option(help="What these files are, for the record.")] = "",
    tolerate_noise: Annotated[
        float | None,
        typer.Option(
            help="Of audio: noise up to this rms (full scale is 1) shall be no alarm, e.g. 0.01."
        ),
    ] = None,
    names: Annotated[
        bool | None,
        typer.Option(
            help="Of audio: judge by the name the model gives (its own speakers), or by the voice "
            "(anybody). Default: by name where the model scores its speakers by logits."
        ),
    ] = None,
    draws: Annotated[int, typer.Option(help="Noise draws a file and kind of noise.")] = 1,
    seed: SeedOption = 0,
    max_duration: MaxDurationOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Learn what clean audio, or pictures, of your own look like to a model.

    At least 20 different files are needed, which allow --fpr 0.05; 99 allow 0.01. With one
    sub-folder a speaker, and two recordings of some, voices can be compared too. A file that was
    tampered with must not be among them.

    Example: nip-audio calibrate clean/ --out my.calibration
    """
    from nip_audio.cli._inputs import find_files, load_model, make_adapter, refuse_of_audio
    from nip_audio.core.state import require_new
    from nip_audio.screening.calibrating import calibrate
    from nip_audio.screening.measure import default_config
    from nip_audio.screening.picture_calibration import calibrate_images

    require_new(out, force=force)
    pretrained = load_model(model, modality)
    of_audio = {"--tolerate-noise": tolerate_noise, "--max-duration": max_duration}
    refuse_of_audio(pretrained, of_audio | {"--names or --no-names": names})
    parts = (find_files(pretrained, part, data_root, follow_links=follow_links) for part in source)
    files = [file for part in parts for file in part]
    sources = describe or ", ".join(part.name for part in source)
    with progress_bar("calibrating", len(files)) as bar:
        if pretrained.card.modality == "image":
            result = calibrate_images(
                pretrained,
                files,
                draws=draws,
                seed=seed,
                sources=sources,
                progress=lambda _: advance(bar),
            )
        else:
            result = calibrate(
                pretrained,
                files,
                make_adapter(pretrained, max_duration),
                default_config(pretrained, draws=draws),
                names=names,
                seed=seed,
                tolerated_noise_rms=tolerate_noise,
                sources=sources,
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
    if result.verification_threshold is None and not result.of_images:
        stderr.print(
            "no speaker has two recordings: no threshold for verify, no check for inconsistent "
            "files; use one sub-folder a speaker"
        )
    if result.failures:
        raise typer.Exit(EXIT_FAILED)
