"""The commands, by name; each module is imported when its command is run."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from nip_audio.cli._exit import EXIT_CLEAN, EXIT_USAGE

COMMANDS: Mapping[str, str] = {
    "doctor": "Examine the installation: packages, devices, models, and what is missing for which "
    "command.",
    "models": "List the models that can be used by name.",
    "identify": "Name the speaker of each recording, among those a model was trained on.",
    "enroll": "Enrol speakers: one voice from each speaker's recordings.",
    "fit-plda": "Fit a PLDA back end, which verify can score by instead of the cosine.",
    "verify": "Verify that a recording is a speaker's.",
    "calibrate": "Learn what clean audio, or pictures, of your own look like to a model.",
    "detect": "Tell which recordings, or pictures, react to noise as clean ones do not.",
    "screen": "Screen enrolment audio, or pictures; the same command continues an interrupted run.",
    "report": "Make a page to look at of a screening: report.html, and results.csv beside it.",
    "backdoor": "Tell whether a training or enrolment set hides files with a backdoor's trigger, "
    "and which.",
    "fit-purifier": "Fit a purifier to a model on clean audio, or pictures, of your own; no labels "
    "are needed.",
    "purify": "Take out of recordings, or pictures, what an attacker put in; leaves yours alone.",
    "attack": "Make adversarial copies of recordings, or pictures, of your own, to test a defence.",
    "evaluate": "Measure systems, attacks and defences on the test role of a split.",
    "robustness": "Rank models by NCCR: how much the same noise changes what their neurons put "
    "out.",
}
"""By name the first line of a command's docstring, which lies in the module of that name."""


class _Group(TyperGroup):
    """Knows the commands by their help; imports the one that is run."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: TyperCommand(name, help=line) for name, line in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find the command that arguments begin with, and import it."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, found and _load(str(name)), rest


def _load(name: str) -> TyperCommand:
    module = import_module(f"{__package__}.{name.replace('-', '_')}")
    alone = typer.Typer(add_completion=False)
    alone.command(name)(module.command)
    loaded: TyperCommand = typer.main.get_command(alone)  # type: ignore[assignment]
    return loaded


app = typer.Typer(
    name="nip-audio",
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    help="Keep speaker recognition trustworthy: detect and screen adversarial audio.\n\n"
    "Exit codes: 0 clean, 3 something was flagged, 4 some files could not be judged, 5 both, 64 "
    "wrong usage, 65 the command could not run, 70 a defect of nip-audio or its installation.",
)

# typer's usage errors share a base that typer itself does not export
_UsageProblem: type[Exception] = typer.BadParameter.__mro__[2]


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", is_eager=True, help="Print the version."),
) -> None:
    if version:
        from nip_audio import __version__

        typer.echo(__version__)
        raise typer.Exit


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; return its exit code. Failures other than wrong usage are raised.

    Raises:
        KeyboardInterrupt: If a question was not answered.
    """
    warnings.filterwarnings("ignore", module=r"(speechbrain|torch|torchaudio)\b")
    group = typer.main.get_command(app)
    try:
        # not group.main(): it answers a closed pipe and Ctrl-C itself, by codes of its own
        given = list(sys.argv[1:] if arguments is None else arguments)
        with group.make_context("nip-audio", given) as context:
            group.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    except typer.Abort as err:
        raise KeyboardInterrupt from err
    except _UsageProblem as err:
        err.show(file=sys.stderr)  # type: ignore[attr-defined]
        return EXIT_USAGE
    return EXIT_CLEAN
