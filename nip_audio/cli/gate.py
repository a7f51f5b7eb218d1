"""The command ``nip-audio gate``, which prints and checks the limits of the enrolment gate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nip_audio.cli._console import print_json, stdout
from nip_audio.cli._options import JsonOption
from nip_audio.errors import InputError

__all__ = ["command"]


def command(
    file: Annotated[
        Path | None, typer.Argument(help="A gate.toml of your own, to check it.", metavar="[FILE]")
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Print the default gate.toml, with its comments.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the limits of the enrolment gate, or check a file of your own.

    The gate itself is part of screen: nip-audio screen --gate FILE.

    Example: nip-audio gate --show > gate.toml
    """
    from nip_audio.screening.enrolment.limits import GateLimits, default_gate_text

    if show == (file is not None):
        raise InputError(
            "gate got both a file and --show, or neither, expected one of them; pass --show to "
            "print the defaults, or a file to check it"
        )
    if show and not as_json:
        typer.echo(default_gate_text(), nl=False)
        return
    limits = GateLimits.of(file)
    if as_json:
        print_json(limits.to_json())
    else:
        stdout.say(f"{file} can be used: nip-audio screen FOLDER --out REPORT --gate {file}")
