"""The command ``nip-audio doctor``, which checks the installation."""

from __future__ import annotations

import typer
from rich.box import SIMPLE
from rich.table import Table

from nip_audio.cli._console import plain, print_json, stdout
from nip_audio.cli._exit import EXIT_DEFECT
from nip_audio.cli._options import JsonOption
from nip_audio.installation import Installation, examine_installation

__all__ = ["command"]


def command(as_json: JsonOption = False) -> None:
    """Check the installation: packages, devices, models and optional parts.

    Packages are imported in a separate process, so that one that cannot be
    loaded is reported like any other problem. Exit code 0 means that all
    required parts work, 70 that something is broken.

    Example: nip-audio doctor
    """
    found = examine_installation()
    if as_json:
        print_json(found.to_json())
    else:
        _print(found)
    if found.problems:
        raise typer.Exit(EXIT_DEFECT)


def _print(found: Installation) -> None:
    stdout.print(f"nip-audio {found.nip_audio}, Python {found.python}, {found.system}")
    table = Table(box=SIMPLE)
    for name in ("package", "version", "imports"):
        table.add_column(name)
    for package in found.packages:
        works = "[green]yes[/]" if package.problem is None else "[red]no[/]"
        table.add_row(package.name, package.version or "–", works)
    stdout.print(table)
    stdout.print(f"devices: {_devices(found)}", highlight=False)
    for model in found.models:
        state = "matches its card" if model.problem is None else "[red]broken[/]"
        stdout.print(f"model {plain(model.name)}: {state}", highlight=False)
    for extra in found.extras:
        if extra.missing:
            stdout.print(
                f"not installed: {', '.join(extra.missing)}, needed for {extra.needed_for}; to "
                rf"install, run in the source folder: pip install '.\[{extra.name}]'",
                highlight=False,
                soft_wrap=True,
            )
    for problem in found.problems:
        stdout.print(f"[bold red]problem:[/] {plain(problem)}", highlight=False, soft_wrap=True)
    if not found.problems:
        stdout.print("[green]all required parts work[/]")


def _devices(found: Installation) -> str:
    if found.devices is None:
        return "unknown, because torch cannot be imported"
    if "problem" in found.devices:
        return str(found.devices["problem"])
    names = [f"{found.devices['cores']} cores", *found.devices["cuda"]]
    if found.devices["mps"]:
        names.append("MPS")
    return ", ".join(names)
