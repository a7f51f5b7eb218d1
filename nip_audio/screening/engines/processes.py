"""Start worker processes that import nothing of the program, and end with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import TypeVar

import torch

from nip_audio._safe_path import SAFE_PATH
from nip_audio.errors import InputError

__all__ = ["apart", "start_pool"]

Given = TypeVar("Given")


@contextmanager
def apart() -> Iterator[None]:
    """Start processes that import neither the program that started them nor what is beside data.

    ``multiprocessing`` imports the main module in each worker, which needs nothing of it. A script
    without ``if __name__ == "__main__":`` would screen again there and break the pool, and its
    files would be recorded as crashed. And it starts Python with ``-c``, which looks for modules
    in the working directory first.
    """
    main = sys.modules["__main__"]
    names = ("__file__", "__spec__")
    kept = {name: getattr(main, name) for name in names if hasattr(main, name)}
    safe = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"
    try:
        for name in names:
            setattr(main, name, None)
        yield
    finally:
        for name in names:
            delattr(main, name)
        for name, value in kept.items():
            setattr(main, name, value)
        if safe is None:
            del os.environ[SAFE_PATH]
        else:
            os.environ[SAFE_PATH] = safe


def start_pool(workers: int, start: Callable[[Given], None], given: Given) -> ProcessPoolExecutor:
    """Return a pool whose processes have one thread and call ``start(given)`` first.

    The first task starts them: submit it under ``apart``.

    Raises:
        InputError: If Python's options would let a process import from the working directory.
    """
    if sys.flags.ignore_environment and not sys.flags.safe_path:
        raise InputError(
            "Python was started with -E and without -P, so that worker processes would import "
            "modules from the working directory, expected both; add -P, or use one worker"
        )
    # no plain fork: a lock that a torch thread holds at that moment stays locked in the child
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([start.__module__])
    with apart():  # its queues start the tracker of resources
        return ProcessPoolExecutor(workers, context, _start, (start, given))


def _start(start: Callable[[Given], None], given: Given) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent shuts its workers down
    torch.set_num_threads(1)
    start(given)


def _end_with_parent() -> None:
    """End this worker when its parent dies; a killed parent cannot shut its workers down."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
