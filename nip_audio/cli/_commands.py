"""Table of the commands; the module of a command is imported when the command is run."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from nip_audio.cli._beside import refuse_files_as_options, refuse_settings_of_numba
from nip_audio.cli._exit import EXIT_CLEAN, EXIT_USAGE
from nip_audio.cli._failures import printable
from nip_audio.cli._former import rewrite_former_options

COMMANDS: Mapping[str, str] = {
    "doctor": "Check the installation: packages, devices, models and optional parts.",
    "models": "List the models that are available by name, or describe one.",
    "adopt": "Adopt a speaker model of your own, so that every command can use it.",
    "export": "Write a model or its guided purifier as an ONNX graph.",
    "identify": "Identify the speaker of each recording, or the class of each image.",
    "enroll": "Enrol speakers from their recordings.",
    "fit-plda": "Fit a PLDA back end, which verify can use instead of the cosine.",
    "threshold": "Set a verification threshold on recordings of your own.",
    "verify": "Verify that a recording was spoken by an enrolled speaker.",
    "calibrate": "Calibrate the detector on clean recordings or images of your own.",
    "detect": "Detect adversarial recordings or images by their response to noise.",
    "screen": "Screen a folder of recordings or images for attacks; run it again to resume.",
    "gate": "Show the limits of the enrolment gate, or check a file of your own.",
    "serve": "Judge, enrol, verify and purify recordings over HTTP.",
    "report": "Write the report of a screening: report.html and results.csv.",
    "backdoor": "Find files with a backdoor trigger in a training or enrolment set.",
    "fit-purifier": "Fit a purifier to a model on clean recordings or images, without labels.",
    "purify": "Write copies of recordings or images without adversarial perturbations.",
    "attack": "Write adversarial copies of recordings or images, to test a defence.",
    "evaluate": "Evaluate systems, attacks and defences on the test files of a split.",
    "robustness": "Rank models by NCCR: how much noise changes the output of their neurons.",
}
"""First line of the docstring of each command; the module has the name of the command."""


_LAST = "--show-settings"  # reads another option, which must have been parsed before it


class _Command(TyperCommand):
    """Command that still takes the options of an earlier version."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, after former options were rewritten."""
        args, notices = rewrite_former_options(str(self.name), args)
        for notice in notices:
            typer.echo(notice, err=True)
        asked = [_LAST] if _LAST in args else []
        return super().parse_args(ctx, [arg for arg in args if arg != _LAST] + asked)


class _Group(TyperGroup):
    """Group that lists the commands from the table, and imports only the one that is run."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: TyperCommand(name, help=line) for name, line in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find the command that the arguments start with, and import it."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, found and load_command(str(name)), rest


def load_command(name: str) -> TyperCommand:
    """Import the command of a name."""
    module = import_module(f"{__package__}.{name.replace('-', '_')}")
    alone = typer.Typer(add_completion=False)
    alone.command(name, cls=_Command)(module.command)
    loaded: TyperCommand = typer.main.get_command(alone)  # type: ignore[assignment]
    return loaded


app = typer.Typer(
    name="nip-audio",
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    help="Defend speaker recognition: detect, screen and purify adversarial recordings.\n\n"
    "Exit codes: 0 clean, 3 something was flagged, 4 some files could not be judged, 5 both, 64 "
    "wrong usage, 65 the command could not run, 70 a defect of nip-audio or its installation.",
)

# the base class of typer's usage errors, which typer does not export
_UsageProblem: type[Exception] = typer.BadParameter.__mro__[2]


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(
        False, "--version", is_eager=True, help="Print the version and exit."
    ),
) -> None:
    if version:
        from nip_audio import __version__

        typer.echo(__version__)
        raise typer.Exit


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; failures other than wrong usage are raised.

    Raises:
        KeyboardInterrupt: If a prompt was aborted.
        InputError: If files of the working directory would decide what the command does.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    refuse_files_as_options(given)
    refuse_settings_of_numba()
    warnings.filterwarnings("ignore", module=r"(speechbrain|torch|torchaudio)\b")
    group = typer.main.get_command(app)
    try:
        # not group.main(), which handles a closed pipe and Ctrl-C with exit codes of its own
        with group.make_context("nip-audio", given) as context:
            group.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    except typer.Abort as err:
        raise KeyboardInterrupt from err
    except _UsageProblem as err:
        err.message = printable(err.message)  # type: ignore[attr-defined]
        err.show(file=sys.stderr)  # type: ignore[attr-defined]
        return EXIT_USAGE
    return EXIT_CLEAN
