"""The command ``nip-audio export``, which writes ONNX graphs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nip_audio.cli._console import print_json, stdout
from nip_audio.cli._options import ForceOption, JsonOption

__all__ = ["PartName", "command"]


class PartName(StrEnum):
    """What is exported."""

    model = "model"
    purifier = "purifier"


def command(
    model: Annotated[
        str, typer.Argument(help="Name of a model of speech, or folder with a model card.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="ONNX file to write.")],
    part: Annotated[
        PartName | None,
        typer.Option(
            help="What to export: the model, from waveforms to embeddings, or its guided purifier "
            "of spectrograms. Default: the model, or the purifier with --purifier."
        ),
    ] = None,
    purifier: Annotated[
        Path | None,
        typer.Option(
            "--purifier",
            "-p",
            help="File of a guided purifier of this model to export; default with --part "
            "purifier: the one that comes with the model.",
        ),
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a model or its guided purifier as an ONNX graph.

    The graph runs in programs without torch and gives what the model gives, to
    1e-4 of the largest value. The extra onnx is needed: pip install
    'nip-audio[onnx]'.

    Example: nip-audio export xvector-libri251 --out xvector.onnx
    """
    from nip_audio.errors import InputError
    from nip_audio.models.pretrained import load_pretrained
    from nip_audio.workflows.export import export_part

    if part is PartName.model and purifier is not None:
        raise InputError(
            f"got --purifier {purifier} with --part model, expected one of them; leave --part out"
        )
    chosen = part or (PartName.model if purifier is None else PartName.purifier)
    pretrained = load_pretrained(model)
    done = export_part(pretrained, out, part=chosen.value, purifier=purifier, force=force)
    if as_json:
        print_json(done.to_json())
        return
    stdout.say(
        f"{done.part} of {done.model} ({done.takes} to {done.returns}, "
        f"{done.sample_rate_hz / 1000:g} kHz): {done.out}"
    )
