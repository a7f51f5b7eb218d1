"""What the processes of the service do with a recording; each has the model and one thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from nip_audio.audio.manifest import Recording
from nip_audio.errors import FileError, WorkerError
from nip_audio.purifiers.base import Purifier
from nip_audio.screening.engines.base import MeasurerRecipe
from nip_audio.screening.engines.processes import apart, start_pool
from nip_audio.screening.measure import FileMeasurer
from nip_audio.screening.measured import MeasuredFile
from nip_audio.screening.records import error_of
from nip_audio.workflows.flagged import shipped_purifier
from nip_audio.workflows.recordings import purify_audio

__all__ = ["Desks", "Purified", "Refused", "measure", "name_of_model", "purify"]

Answer = TypeVar("Answer")

_measurer: FileMeasurer | None = None  # in a worker process: made once, when it starts
_purifier: Purifier | None = None


@dataclass(frozen=True)
class Refused:
    """A recording that cannot be used.

    Attributes:
        error: ``code``, ``found`` and ``remedy``.
    """

    error: dict[str, str]


@dataclass(frozen=True)
class Purified:
    """What purification did.

    Attributes:
        snr_db: Ratio of the original to the change, in decibels; None if nothing changed.
        cosine: Cosine between the embeddings before and after.
    """

    snr_db: float | None
    cosine: float


def name_of_model() -> str:
    """Return the name of the model, once it is loaded."""
    return str(_ready().pretrained.card.name)


def measure(path: Path, gated: bool) -> MeasuredFile:
    """Measure a recording for the detector and, if ``gated``, for the enrolment gate there is."""
    measurer = _ready()
    measurer = measurer if gated else replace(measurer, speech=False)
    return measurer(Recording(path.name, path))


def purify(path: Path, out: Path) -> Purified | Refused:
    """Write a purified copy of a recording."""
    global _purifier  # noqa: PLW0603
    measurer = _ready()
    if _purifier is None:
        _purifier = shipped_purifier(measurer.pretrained)
    try:
        audio = measurer.kind.reader.read(Recording(path.name, path))
        done = purify_audio(measurer.pretrained, _purifier, audio, seed=measurer.seed)
    except FileError as err:
        return Refused(error_of(err))
    done.write(out)
    return Purified(done.snr_db, done.cosine)


class Desks:
    """Worker processes that answer one recording at a time each.

    A recording that crashes its process, as a broken decoder may, ends that process and nothing
    else: what was under way at that moment is answered with an error, and new processes take the
    place of the old ones.

    Args:
        measurer: Measurer that every process makes again for itself.
        workers: Number of processes.
    """

    def __init__(self, measurer: FileMeasurer, workers: int) -> None:
        self._recipe = MeasurerRecipe.of(measurer)
        self._workers = workers
        self._pool = self._new()

    async def ask(self, function: Callable[..., Answer], *given: object) -> Answer:
        """Call a function of this module in a process.

        Raises:
            WorkerError: If a process crashed meanwhile.
        """
        pool = self._pool
        try:
            with apart():  # the first task starts the processes
                asked = pool.submit(function, *given)
            return await asyncio.wrap_future(asked)
        except BrokenProcessPool as err:
            if pool is self._pool:  # only the first to notice replaces it
                self._pool = self._new()
                pool.shutdown(wait=False, cancel_futures=True)
            raise WorkerError("a worker process crashed; send the recording again, alone") from err

    def close(self) -> None:
        """End the processes after what they are doing."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _new(self) -> ProcessPoolExecutor:
        return start_pool(self._workers, _start, self._recipe)


def _start(recipe: MeasurerRecipe) -> None:
    global _measurer  # noqa: PLW0603
    _measurer = recipe.make()


def _ready() -> FileMeasurer:
    if _measurer is None:
        raise RuntimeError("got a recording, expected _start to run first")
    return _measurer
