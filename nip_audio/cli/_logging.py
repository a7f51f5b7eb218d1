"""Obey the options --log-file and --quiet of a command."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nip_audio.cli._console import stderr, stdout
from nip_audio.cli._failures import printable
from nip_audio.errors import NipAudioError, OutputError

logger = logging.getLogger("nip_audio.cli")
logger.addHandler(logging.NullHandler())  # without any, Python prints warnings on standard error


def told_elsewhere(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command with options ``log_file`` and ``quiet`` that obeys them."""

    @functools.wraps(command)
    def obeying(*, log_file: Path | None, quiet: bool, **options: Any) -> None:
        with _logged(log_file), _silent(quiet=quiet):
            command(log_file=log_file, quiet=quiet, **options)

    return obeying


class _OneLine(logging.Formatter):
    """Formatter whose entries have no line breaks or control characters, whatever names hold."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one printable line."""
        return printable(super().format(record))


@contextmanager
def _logged(path: Path | None) -> Iterator[None]:
    """Append messages of the toolkit, and the error that ends a command, to a file.

    Raises:
        OutputError: If the file cannot be written.
    """
    if path is None:
        yield
        return
    try:
        handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError as err:
        raise OutputError(
            f"{path} cannot be written ({err.strerror}); choose another --log-file"
        ) from err
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))
    ours = logging.getLogger("nip_audio")
    before = ours.level
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield
    except NipAudioError as err:
        logger.error("%s", err)
        raise
    finally:
        ours.setLevel(before)
        ours.removeHandler(handler)
        handler.close()


@contextmanager
def _silent(*, quiet: bool) -> Iterator[None]:
    """Print no text if ``quiet``; JSON and errors are still printed."""
    before = stdout.quiet, stderr.quiet
    if quiet:
        stdout.quiet = stderr.quiet = True
    try:
        yield
    finally:
        stdout.quiet, stderr.quiet = before
