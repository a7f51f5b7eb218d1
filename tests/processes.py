"""Python processes that need not import torch: they are forked from one that has.

Importing takes seconds of computing, and a test that starts scripts would do little else.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

PRELOADED = [
    "torch._dynamo",  # which the first optimiser would import
    "nip_audio.cli",
    "nip_audio.training.publishing",
    "nip_audio.training.training",
]


class Started:
    """A running process, asked as one of ``subprocess`` is."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process
        self.pid = process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def start_python(
    program: str | Path, *arguments: object, log: Path, folder: Path | None = None
) -> Started:
    """Start a script (a path) or a module (a name) as ``python`` would, in a session of its own.

    Args:
        program: Path of a script, or name of a module as after ``python -m``.
        arguments: Arguments of its command line.
        log: File for what it writes to standard output and standard error.
        folder: Where it is to run.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    given = (program, [str(a) for a in arguments], log, folder)
    process = context.Process(target=_run, args=given)
    process.start()
    return Started(process)


def _run(program: str | Path, arguments: Sequence[str], log: Path, folder: Path | None) -> None:
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if folder is not None:
        os.chdir(folder)
    sys.argv = [str(program), *arguments]
    if isinstance(program, Path):
        sys.path.insert(0, str(program.parent))
        runpy.run_path(str(program), run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
