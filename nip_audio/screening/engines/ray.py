"""Measure files on many machines or GPUs: Ray Data hands them to actors that hold the model.

The measurements return to the process that judges and writes the journal. An interrupted run
resumes from the journal and needs no state in Ray.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from nip_audio._safe_path import HOME
from nip_audio.audio.manifest import Recording
from nip_audio.errors import InputError, MissingDependencyError
from nip_audio.screening.engines.base import Begun, MeasurerRecipe
from nip_audio.screening.engines.local import measure_alone
from nip_audio.screening.journal import from_line, to_line
from nip_audio.screening.measure import FileMeasurer
from nip_audio.screening.measured import MeasuredFile

__all__ = ["RayEngine"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RayEngine:
    """Measures files in actors of a Ray cluster.

    Every machine must find the files under the same paths or URLs, and the model in the same
    folder. A running cluster is used if ``ray.init(address="auto")`` was called before or
    ``RAY_ADDRESS`` is set; otherwise one is started on this machine.

    Attributes:
        actors: Number of processes that hold the model.
        gpus: Number of GPUs for each actor; 0.25 lets four actors share one.
        batch: Number of files that an actor receives at a time.
        chunk: Largest number of files in progress; their measurements are kept in memory.
    """

    actors: int = 2
    gpus: float = 0.0
    batch: int = 4
    chunk: int = 5000

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InputError: If one is out of range.
        """
        if min(self.actors, self.batch, self.chunk) < 1 or self.gpus < 0:
            raise InputError(
                f"got actors={self.actors}, batch={self.batch}, chunk={self.chunk} and "
                f"gpus={self.gpus:g}, expected the first three to be at least 1 and gpus at least "
                "0; correct the number that is too small"
            )

    def measure(
        self,
        measurer: FileMeasurer,
        recordings: Iterable[Recording],
        *,
        begun: Begun = lambda recording: None,  # noqa: ARG002
    ) -> Iterator[MeasuredFile]:
        """Measure files in the order given, none of them in this process.

        Raises:
            MissingDependencyError: If Ray is not installed.
        """
        _started_ray()
        recipe = MeasurerRecipe.of(measurer)
        waiting = iter(recordings)
        while chunk := list(islice(waiting, self.chunk)):
            yield from self._measure_chunk(recipe, chunk)

    def _measure_chunk(
        self, recipe: MeasurerRecipe, chunk: list[Recording]
    ) -> Iterator[MeasuredFile]:
        ray = _started_ray()
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        # a batch whose actor keeps dying is missing from the results instead of ending the run
        context.max_errored_blocks = -1
        rows = ray.data.from_items(
            [{"place": place} for place in range(len(chunk))],
            override_num_blocks=-(-len(chunk) // self.batch),
        )
        measured = rows.map_batches(
            _Actor,
            fn_constructor_args=(recipe, chunk, "cuda" if self.gpus else "cpu"),
            batch_size=self.batch,
            compute=ray.data.ActorPoolStrategy(size=self.actors),
            num_gpus=self.gpus or None,
        )
        place = 0
        for row in measured.iter_rows():
            yield from measure_alone(recipe, chunk[place : row["place"]])
            yield from_line(row["line"])
            place = row["place"] + 1
        yield from measure_alone(recipe, chunk[place:])


class _Actor:
    """Holds the model on one machine."""

    def __init__(self, recipe: MeasurerRecipe, chunk: list[Recording], device: str) -> None:
        torch.set_num_threads(1)
        self._measurer = recipe.make()
        self._measurer.pretrained.model.to(device)
        self._chunk = chunk

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        places = [int(place) for place in batch["place"]]
        lines = [to_line(self._measurer(self._chunk[place])) for place in places]
        return {"place": np.array(places), "line": np.array(lines, dtype=object)}


def _started_ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as err:
        raise MissingDependencyError("the engine ray needs Ray Data", extra="scale") from err
    if not ray.is_initialized():
        ray.init(
            log_to_driver=False,
            logging_level=logging.WARNING,
            include_dashboard=False,
            job_config=_job(ray),
        )
    return ray


def _job(ray: Any) -> Any:
    """Return settings by which workers import this package, and nothing that is beside the data.

    Ray would put the working directory before everything else on the path of each worker.
    """
    return ray.job_config.JobConfig(_py_driver_sys_path=_Path([HOME]))


class _Path(list[str]):
    """Folders of modules to which Ray can add none."""

    def extend(self, folders: Iterable[str]) -> None:
        """Leave them out."""
