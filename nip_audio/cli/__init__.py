"""Command line: one small file a command; no logic in here.

``main`` is all that the script ``nip-audio`` imports, and it catches whatever goes wrong from then
on: a library that cannot be loaded ends in a message and an exit code of its own, as any failure.
"""

from __future__ import annotations

from collections.abc import Sequence

from nip_audio.cli._failures import code_after, flush_outputs, terminable

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, by default that of the process; return its exit code."""
    try:
        with terminable():
            from nip_audio.cli._commands import run

            code = run(arguments)
    except BaseException as err:  # noqa: BLE001 - Python's own code for it is 1
        code = code_after(err)
    return flush_outputs(code)
