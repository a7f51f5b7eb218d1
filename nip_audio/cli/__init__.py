"""Command line: one module per command, which parses options, calls the library and prints.

The script ``nip-audio`` imports ``main`` only. ``main`` catches every failure from then on, also of
a library that cannot be loaded, and turns it into a message and an exit code.
"""

from __future__ import annotations

from collections.abc import Sequence

from nip_audio._safe_path import leave_working_directory
from nip_audio.cli._failures import code_after, flush_outputs, terminable

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, by default that of this process, and return its exit code."""
    leave_working_directory()
    try:
        with terminable():
            from nip_audio.cli._commands import run

            code = run(arguments)
    except BaseException as err:  # noqa: BLE001 - Python would exit with 1
        code = code_after(err)
    return flush_outputs(code)
