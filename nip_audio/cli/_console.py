"""Output of the commands: consoles, progress bars, JSON, and the exit code of the findings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from nip_audio.cli._exit import EXIT_FAILED, EXIT_FLAGGED, EXIT_FLAGGED_AND_FAILED
from nip_audio.cli._failures import in_options, printable
from nip_audio.errors import FileError


class _Console(Console):
    """Console that shows control characters in names, and leaves a closed pipe to ``main``.

    A terminal would obey those in the name of a file. Rich would end the process with code 1 when
    the reader of a pipe has gone.
    """

    def say(self, text: object) -> None:
        """Print one line of plain text, which names of files, speakers and models may be part of.

        A line break in a name is shown as well, so that no name adds a line of its own.
        """
        self.print(printable(str(text)), markup=False, highlight=False, soft_wrap=True)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Render text with its control characters shown, whatever it is part of."""
        shown = "\n".join(printable(line) for line in text.split("\n"))
        return super().render_str(shown, **settings)

    def on_broken_pipe(self) -> None:
        """Stop writing to standard error; the results still go to standard output."""
        if not self.stderr:
            raise  # noqa: PLE0704 - rich calls this where it has caught BrokenPipeError
        self.quiet = True


stderr = _Console(stderr=True)
stdout = _Console()


def print_json(value: Any) -> None:
    """Print one JSON value on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False))


@contextmanager
def progress_bar(description: str, total: int | None) -> Iterator[Progress]:
    """Show a progress bar with one task on standard error."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr) as bar:
        bar.add_task(description, total=total)
        yield bar


@contextmanager
def evaluation_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show which cell of the tables an evaluation is measuring."""
    with progress_bar("loading models and clips", None) as bar:
        yield lambda cell, done, total: bar.update(
            bar.task_ids[0], description=plain(cell), completed=done, total=total
        )


def advance(bar: Progress) -> None:
    """Advance the task of a progress bar by one."""
    bar.advance(bar.task_ids[0])


def print_skipped(failures: Sequence[FileError]) -> None:
    """Print which files could not be used, and why."""
    for failure in failures:
        stderr.say(f"skipped: {in_options(str(failure))}")


def print_note(text: str) -> None:
    """Print a sentence about the run on standard error."""
    stderr.say(f"note: {text}")


def print_changes(name: str, changes: Sequence[str]) -> None:
    """Print what reading a file changed, so that a result is not taken for that of the file."""
    if changes:
        stderr.print(f"{plain(name)}: {'; '.join(changes)}", highlight=False, soft_wrap=True)


def plain(text: str) -> str:
    """Escape text for rich, and replace control characters, so that names stay plain text."""
    return escape(printable(text))


def exit_with(flagged: int, unjudged: int) -> None:
    """End the command with the exit code for what was flagged, and what could not be judged."""
    if flagged and unjudged:
        raise typer.Exit(EXIT_FLAGGED_AND_FAILED)
    if unjudged:
        raise typer.Exit(EXIT_FAILED)
    if flagged:
        raise typer.Exit(EXIT_FLAGGED)
