"""The command ``nip-audio fit-purifier``, which fits a purifier to a model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nip_audio.cli._console import print_json, print_skipped, progress_bar, stderr, stdout
from nip_audio.cli._exit import EXIT_FAILED
from nip_audio.cli._options import (
    DataRootOption,
    FollowLinksOption,
    ForceOption,
    JsonOption,
    MaxDurationOption,
    ModalityOption,
    ModelOption,
    SeedOption,
)
from nip_audio.cli._settings import (
    SetOption,
    Setting,
    list_settings,
    read_settings,
    show_settings_option,
)

__all__ = ["Method", "command", "settings_of"]


class Method(StrEnum):
    """Kind of purifier."""

    GUIDED = "guided"
    POOL = "pool"
    CLASS_NEURONS = "class-neurons"
    PATCH_DICTIONARY = "patch-dictionary"


def settings_of(method: str) -> Sequence[Setting]:
    """Return the settings of a method."""
    from nip_audio.workflows.fit_settings import FIT_SETTINGS

    return list_settings(FIT_SETTINGS[method])


def command(
    source: Annotated[
        list[Path],
        typer.Argument(help="Folders of clean recordings or images, or manifests of recordings."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Purifier file to write.")],
    model: ModelOption = None,
    modality: ModalityOption = None,
    data_root: DataRootOption = None,
    follow_links: FollowLinksOption = False,
    method: Annotated[
        Method,
        typer.Option(
            is_eager=True,
            help="Use guided. The others are for comparison: pool is NIP (neuron-level inverse "
            "perturbation) as published, patch-dictionary stands in for the sparse transformation "
            "layer (STL), and class-neurons for neuron selecting (NS), which changes no input and "
            "is for evaluations only.",
        ),
    ] = Method.GUIDED,
    setting: SetOption = None,
    show_settings: Annotated[  # noqa: ARG001 - eager
        bool, show_settings_option("method", Method.GUIDED, settings_of)
    ] = False,
    start: Annotated[
        Path | None,
        typer.Option("--from", help="Guided purifier of the same model to train further."),
    ] = None,
    seed: SeedOption = 0,
    max_duration: MaxDurationOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fit a purifier to a model on clean recordings or images, without labels.

    A guided purifier takes some minutes; run the same command again to resume
    an interrupted training. The model decides whether recordings or images are
    read.

    Example: nip-audio fit-purifier clean/ --model resnet34-libri30 --out
    my.purifier --set steps=1200
    """
    from nip_audio.cli._inputs import find_files, load_model, make_reader, refuse_options
    from nip_audio.core.state import require_new
    from nip_audio.models.adopted import attach_companion
    from nip_audio.workflows.fit import fit_purifier
    from nip_audio.workflows.fit_settings import FIT_SETTINGS

    require_new(out, force=force)
    values = read_settings(setting or [], settings_of(method), method)
    settings = FIT_SETTINGS[method](**values)
    pretrained = load_model(model, modality)
    given = {f"--set {name}": value for name, value in values.items()}
    refuse_options(pretrained, "fit-purifier", given | {"--max-duration": max_duration})
    parts = (find_files(pretrained, part, data_root, follow_links=follow_links) for part in source)
    started = time.monotonic()
    with progress_bar("fitting", None) as bar:

        def report(done: int, total: int, kept: float | None) -> None:
            said = "fitting" if kept is None else f"training, {kept:.0%} of predictions kept"
            bar.update(bar.task_ids[0], completed=done, total=total, description=said)

        fitted = fit_purifier(
            pretrained,
            (file for part in parts for file in part),
            make_reader(pretrained, max_duration),
            settings,
            out,
            start=start,
            seed=seed,
            force=force,
            progress=report,
        )
    guided = method is Method.GUIDED
    attached = guided and attach_companion(pretrained.card, "purifier", out)
    print_skipped(fitted.failures)
    if as_json:
        print_json(fitted.to_json())
    else:
        stdout.say(
            f"{method} purifier for {pretrained.card.name}, fitted to {fitted.files} files in "
            f"{time.monotonic() - started:.0f} s: {out}"
        )
        if attached:
            stdout.say(f"{pretrained.card.directory} uses it by default")
    if fitted.defends is False:
        stderr.print(
            f"the model keeps its prediction on only {fitted.kept:.0%} of the last training "
            "examples, so this purifier does not defend yet; pass more steps (--set steps=...), or "
            "weaker attacks (--set eps=...)",
            soft_wrap=True,
        )
    if fitted.failures:
        raise typer.Exit(EXIT_FAILED)
