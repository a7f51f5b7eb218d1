"""How commands talk: consoles, progress, JSON, and the exit code of what was found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nip_audio.cli._exit import EXIT_FAILED, EXIT_FLAGGED, EXIT_FLAGGED_AND_FAILED
from nip_audio.cli._failures import printable
from nip_audio.errors import FileError


class _Console(Console):
    """Leaves a closed pipe to ``main``; rich would end the process with 1."""

    def on_broken_pipe(self) -> None:
        """Fall silent on standard error; what a command found still goes to standard output."""
        if not self.stderr:
            raise  # noqa: PLE0704 - rich calls this where it has caught BrokenPipeError
        self.quiet = True


stderr = _Console(stderr=True)
stdout = _Console()


def print_json(value: Any) -> None:
    """Print one JSON value on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False))


@contextmanager
def progress_bar(what: str, total: int | None) -> Iterator[Progress]:
    """Show a bar on standard error; yields it with one task."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr) as bar:
        bar.add_task(what, total=total)
        yield bar


@contextmanager
def evaluation_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show the cell that an evaluation is at."""
    with progress_bar("loading models and clips", None) as bar:
        yield lambda cell, done, total: bar.update(
            bar.task_ids[0], description=cell, completed=done, total=total
        )


def advance(bar: Progress) -> None:
    """Advance a bar's one task by one."""
    bar.advance(bar.task_ids[0])


def print_left_out(failures: Sequence[FileError]) -> None:
    """Name the files that could not be used, and why."""
    for failure in failures:
        stderr.print(f"left out: {failure}", markup=False, highlight=False, soft_wrap=True)


def plain(text: str) -> str:
    """Keep rich from reading markup into names, and control characters off the terminal."""
    return escape(printable(text))


def exit_with(flagged: int, failed: int) -> None:
    """End the command by how many files were flagged, and how many could not be judged."""
    if flagged and failed:
        raise typer.Exit(EXIT_FLAGGED_AND_FAILED)
    if failed:
        raise typer.Exit(EXIT_FAILED)
    if flagged:
        raise typer.Exit(EXIT_FLAGGED)
