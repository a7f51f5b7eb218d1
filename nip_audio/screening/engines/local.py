"""Measure files in worker processes of this machine, each with the model and one thread."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice

import torch

from nip_audio.audio.manifest import Recording
from nip_audio.errors import InputError, WorkerError
from nip_audio.screening.engines.base import Begun, MeasurerRecipe
from nip_audio.screening.engines.processes import apart, start_pool
from nip_audio.screening.measure import FileMeasurer
from nip_audio.screening.measured import CRASHED, RETRY, MeasuredFile

__all__ = ["LocalEngine", "measure_alone"]

_FEW = 40
"""With fewer files, starting workers that load the model takes longer than measuring here."""

_AHEAD = 4

_measurer: FileMeasurer | None = None  # in a worker process: made once, when it starts


@dataclass(frozen=True)
class LocalEngine:
    """Measures files in worker processes of this machine.

    One thread in each process measures more files per second than many threads in one process. It
    also makes the numbers independent of the number of cores, because sums are never split.

    Attributes:
        workers: Number of worker processes; 1 measures in this process. None starts one per core if
            there are at least 40 files.
    """

    workers: int | None = None

    def __post_init__(self) -> None:
        """Check the number of workers.

        Raises:
            InputError: If it is below 1.
        """
        if self.workers is not None and self.workers < 1:
            raise InputError(
                f"got {self.workers} workers, expected at least 1; leave it out for one per core"
            )

    def measure(
        self,
        measurer: FileMeasurer,
        recordings: Iterable[Recording],
        *,
        begun: Begun = lambda recording: None,
    ) -> Iterator[MeasuredFile]:
        """Measure files in the order given, with at most four per worker in progress."""
        waiting = iter(recordings)
        first = list(islice(waiting, _FEW))
        workers = self.workers or (_cores() if len(first) == _FEW else 1)
        every = chain(first, waiting)
        if workers == 1:
            return _measure_here(measurer, every, begun)
        return _measure_in_pool(MeasurerRecipe.of(measurer), every, workers)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _measure_here(
    measurer: FileMeasurer, recordings: Iterable[Recording], begun: Begun
) -> Iterator[MeasuredFile]:
    for recording in recordings:
        begun(recording)
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
                # it is unknown which file crashed a worker: measure each in a process of its own
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
        with apart():  # the first file starts the workers
            return pool.submit(_measure, recording)
    except BrokenProcessPool as error:
        # the pool broke after the last result was taken: queue this file like those it had accepted
        refused: Future[MeasuredFile] = Future()
        refused.set_exception(error)
        return refused


def measure_alone(
    recipe: MeasurerRecipe, recordings: Iterable[Recording]
) -> Iterator[MeasuredFile]:
    """Measure each file in a process of its own, so that a crash can be blamed on its file.

    Raises:
        WorkerError: If a process ends before it is given a file, so that no file is to blame.
    """
    for recording in recordings:
        pool = _started_worker(recipe)
        try:
            yield _submitted(pool, recording).result()
        except BrokenProcessPool:
            yield _crashed(recording)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _started_worker(recipe: MeasurerRecipe) -> ProcessPoolExecutor:
    """Start one worker, with a second try: the first may have been killed."""
    for _ in range(2):
        pool = _pool(recipe, 1)
        try:
            with apart():
                started = pool.submit(os.getpid)
            started.result()
        except BrokenProcessPool:
            pool.shutdown(wait=True, cancel_futures=True)
        else:
            return pool
    raise WorkerError(
        "a worker process crashed before it was given a file: the installation is broken, or there "
        "is too little memory; run nip-audio doctor, or measure in this process with --workers 1"
    )


def _crashed(recording: Recording) -> MeasuredFile:
    error = {
        "code": CRASHED,
        "found": "the process that read this file crashed, and crashed again when it read this "
        "file alone",
        "remedy": "convert the file to a 16-bit wav or remove it; if it is very long, provide more "
        "memory",
    }
    return MeasuredFile(recording.id, recording.speaker, RETRY, error=error)


def _pool(recipe: MeasurerRecipe, workers: int) -> ProcessPoolExecutor:
    return start_pool(workers, _start_worker, recipe)


def _start_worker(recipe: MeasurerRecipe) -> None:
    global _measurer  # noqa: PLW0603
    _measurer = recipe.make()


def _measure(recording: Recording) -> MeasuredFile:
    if _measurer is None:
        raise RuntimeError("got a file to measure, expected _start_worker to run first")
    return _measurer(recording)
