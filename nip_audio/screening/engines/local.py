"""This machine: worker processes, each with the model and one thread."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from multiprocessing.connection import wait

import torch

from nip_audio.audio.manifest import Recording
from nip_audio.errors import InputError
from nip_audio.screening.engines.base import MeasurerRecipe
from nip_audio.screening.measure import FileMeasurer
from nip_audio.screening.measured import AGAIN, MeasuredFile

__all__ = ["LocalEngine", "measure_alone"]

_FEW = 40
"""Files that are measured before another process has loaded the model."""

_AHEAD = 4

_measurer: FileMeasurer | None = None  # of a worker process, made once when it starts


@dataclass(frozen=True)
class LocalEngine:
    """Measures files in processes of this machine.

    One thread a process measures more files a second than many threads in one, and gives the same
    numbers on any machine of a kind: how sums are split does not depend on the number of cores.

    Attributes:
        workers: Processes; 1 measures in this one. None takes one a core, for more than a few
            files.
    """

    workers: int | None = None

    def __post_init__(self) -> None:
        """Check.

        Raises:
            InputError: If there is no worker.
        """
        if self.workers is not None and self.workers < 1:
            raise InputError(f"got {self.workers} workers, expected at least 1")

    def measure(
        self, measurer: FileMeasurer, recordings: Iterable[Recording]
    ) -> Iterator[MeasuredFile]:
        """Measure files, in the order given; at most a few a worker are under way at a time."""
        waiting = iter(recordings)
        first = list(islice(waiting, _FEW))
        workers = self.workers or (_cores() if len(first) == _FEW else 1)
        every = chain(first, waiting)
        if workers == 1:
            return _measure_here(measurer, every)
        return _measure_in_pool(MeasurerRecipe.of(measurer), every, workers)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _measure_here(
    measurer: FileMeasurer, recordings: Iterable[Recording]
) -> Iterator[MeasuredFile]:
    for recording in recordings:
        with _one_thread():
            file = measurer(recording)
        yield file


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _measure_in_pool(
    recipe: MeasurerRecipe, recordings: Iterable[Recording], workers: int
) -> Iterator[MeasuredFile]:
    waiting = iter(recordings)
    under_way: deque[tuple[Recording, Future[MeasuredFile]]] = deque()
    pool = _pool(recipe, workers)
    try:
        while True:
            for recording in islice(waiting, workers * _AHEAD - len(under_way)):
                under_way.append((recording, _submitted(pool, recording)))
            if not under_way:
                return
            try:
                file = under_way[0][1].result()
            except BrokenProcessPool:
                # which file did it is not known: all that were under way are measured alone
                pool.shutdown(wait=True, cancel_futures=True)
                yield from measure_alone(recipe, [recording for recording, _ in under_way])
                under_way.clear()
                pool = _pool(recipe, workers)
            else:
                under_way.popleft()
                yield file
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submitted(pool: ProcessPoolExecutor, recording: Recording) -> Future[MeasuredFile]:
    try:
        return pool.submit(_measure, recording)
    except BrokenProcessPool as error:
        # it broke since the last answer was taken: this file waits in line like those it had taken
        refused: Future[MeasuredFile] = Future()
        refused.set_exception(error)
        return refused


def measure_alone(recipe: MeasurerRecipe, recordings: list[Recording]) -> Iterator[MeasuredFile]:
    """Measure files in a process each, so that one that brings it down is known."""
    for recording in recordings:
        pool = _pool(recipe, 1)
        try:
            yield pool.submit(_measure, recording).result()
        except BrokenProcessPool:
            yield _crashed(recording)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _crashed(recording: Recording) -> MeasuredFile:
    error = {
        "code": "crashed",
        "found": "the process that read it came to a sudden end, and again when it read it alone",
        "remedy": "convert it to a 16-bit wav, or remove it; if it is very long, give more memory",
    }
    return MeasuredFile(recording.id, recording.speaker, AGAIN, error=error)


def _pool(recipe: MeasurerRecipe, workers: int) -> ProcessPoolExecutor:
    # not by fork: a lock of torch's threads that is held at that moment stays locked in the child
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return ProcessPoolExecutor(workers, context, _start_worker, (recipe,))


def _start_worker(recipe: MeasurerRecipe) -> None:
    global _measurer  # noqa: PLW0603
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the run, and its workers
    torch.set_num_threads(1)
    _measurer = recipe.make()


def _end_with_parent() -> None:
    """A parent that was killed cannot end its workers, and they would wait for it forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _measure(recording: Recording) -> MeasuredFile:
    if _measurer is None:
        raise RuntimeError("a worker measures before it was started")
    return _measurer(recording)
