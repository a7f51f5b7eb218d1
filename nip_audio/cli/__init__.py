"""Command line: one small file a command; no logic in here."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Sequence

import typer

from nip_audio import __version__
from nip_audio.cli import (
    attack,
    backdoor,
    calibrate,
    detect,
    enroll,
    evaluate,
    fit_plda,
    fit_purifier,
    identify,
    models,
    purify,
    report,
    robustness,
    screen,
    verify,
)
from nip_audio.cli._console import EXIT_DEFECT, EXIT_REFUSED, EXIT_USAGE, plain, stderr
from nip_audio.errors import NipAudioError

__all__ = ["app", "main"]

app = typer.Typer(
    name="nip-audio",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Keep speaker recognition trustworthy: detect and screen adversarial audio.\n\n"
    "Exit codes: 0 clean, 1 something was flagged, 2 some files failed, 64 wrong usage, 65 the "
    "command could not run, 70 a defect of nip-audio.",
)
COMMANDS = (
    *(models, identify, enroll, fit_plda, verify),
    *(calibrate, detect, screen, report, backdoor),
    *(fit_purifier, purify),
    *(attack, evaluate, robustness),
)
for command in COMMANDS:
    app.command()(command.command)

EXIT_INTERRUPTED = 130  # as shells have it

# typer's usage errors share a base that typer itself does not export
_UsageProblem: type[Exception] = typer.BadParameter.__mro__[2]


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", is_eager=True, help="Print the version."),
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; return its exit code."""
    warnings.filterwarnings("ignore", module=r"(speechbrain|torch|torchaudio)\b")
    try:
        code = app(arguments, standalone_mode=False, prog_name="nip-audio")
    except NipAudioError as err:
        stderr.print(f"[bold red]error:[/] {plain(str(err))}", highlight=False, soft_wrap=True)
        return EXIT_REFUSED
    except (KeyboardInterrupt, typer.Abort):
        code = EXIT_INTERRUPTED
    except _UsageProblem as err:
        err.show(file=sys.stderr)  # type: ignore[attr-defined]
        return EXIT_USAGE
    except Exception:  # noqa: BLE001 - Python's own code for it, 1, would say "flagged"
        traceback.print_exc()
        stderr.print("[bold red]error:[/] this is a defect of nip-audio; please report it")
        return EXIT_DEFECT
    if code == EXIT_INTERRUPTED:  # typer makes an exit of Ctrl-C
        stderr.print(
            "interrupted; what was written stays. screen, evaluate and fit-purifier go on where "
            "they were when the same command is given again"
        )
    return code if isinstance(code, int) else 0
