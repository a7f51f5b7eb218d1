"""The command ``nip-audio identify``, which prints the predictions of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nip_audio.cli._console import plain, print_json, stderr, stdout
from nip_audio.cli._exit import EXIT_FAILED
from nip_audio.cli._options import (
    JsonOption,
    MaxDurationOption,
    ModalityOption,
    RequiredModelOption,
)
from nip_audio.errors import FileError

__all__ = ["command"]


def command(
    files: Annotated[
        list[Path], typer.Argument(help="Recordings or images, as the model takes them.")
    ],
    model: RequiredModelOption,
    modality: ModalityOption = None,
    top: Annotated[int, typer.Option(min=1, help="Number of candidates to print per file.")] = 3,
    max_duration: MaxDurationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Identify the speaker of each recording, or the class of each image.

    The candidates are the labels that the model was trained on, so a stranger
    is identified as one of them too. Run nip-audio models for the names of the
    models.

    Example: nip-audio identify a.wav b.flac --model resnet34-libri30
    """
    from nip_audio.cli._inputs import load_model, make_reader, refuse_options
    from nip_audio.models.identification import identify

    pretrained = load_model(model, modality)
    refuse_options(pretrained, "identify", {"--max-duration": max_duration})
    reader = make_reader(pretrained, max_duration)
    results: list[dict[str, Any]] = []
    for file in files:
        try:
            candidates = identify(pretrained, reader.load(file).raw, top=top)
        except FileError as err:
            stderr.print(str(err), markup=False, highlight=False, soft_wrap=True)
            error = {"code": err.code, "found": err.found, "remedy": err.remedy}
            results.append({"file": str(file), "candidates": [], "error": error})
            continue
        listed = [c.to_json() for c in candidates]
        results.append({"file": str(file), "candidates": listed, "error": None})
        if not as_json:
            ranking = ", ".join(f"{plain(c.speaker)} {c.posterior:.0%}" for c in candidates)
            stdout.print(f"{plain(str(file))}: {ranking}", highlight=False, soft_wrap=True)
    if as_json:
        print_json(results)
    if any(r["error"] for r in results):
        raise typer.Exit(EXIT_FAILED)
