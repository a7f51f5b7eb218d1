"""Many machines or GPUs: Ray Data hands files to a pool of actors, each with the model.

What is measured comes back to the one run that judges and keeps the journal; that it goes on after
an interruption depends on the journal alone, not on Ray.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from nip_audio.audio.manifest import Recording
from nip_audio.errors import InputError, MissingDependencyError
from nip_audio.screening.engines.base import MeasurerRecipe
from nip_audio.screening.engines.local import measure_alone
from nip_audio.screening.journal import from_line, to_line
from nip_audio.screening.measure import FileMeasurer
from nip_audio.screening.measured import MeasuredFile

__all__ = ["RayEngine"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RayEngine:
    """Measures files in actors of a Ray cluster.

    Every machine must see the files under the same paths, or URLs, and the model in the same
    folder. A cluster that runs already is used (``ray.init(address="auto")`` beforehand, or
    ``RAY_ADDRESS``); else one is started on this machine.

    Attributes:
        actors: Processes with the model.
        gpus: Of each; a share such as 0.25 lets four measure on one.
        batch: Files that an actor is given at a time.
        chunk: Files that are under way at most; what they come to is kept in memory meanwhile.
    """

    actors: int = 2
    gpus: float = 0.0
    batch: int = 4
    chunk: int = 5000

    def __post_init__(self) -> None:
        """Check.

        Raises:
            InputError: If a number makes no sense.
        """
        if min(self.actors, self.batch, self.chunk) < 1 or self.gpus < 0:
            raise InputError(
                f"got {self.actors} actors of {self.gpus:g} GPUs, {self.batch} files at a time of "
                f"{self.chunk}; expected at least one of each, and no fewer GPUs than none"
            )

    def measure(
        self, measurer: FileMeasurer, recordings: Iterable[Recording]
    ) -> Iterator[MeasuredFile]:
        """Measure files, in the order given.

        Raises:
            MissingDependencyError: Without Ray.
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
        # a batch whose actor died again and again is missing from the results, not their end
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
        raise MissingDependencyError(
            "the engine ray needs Ray Data; install it with: pip install 'nip-audio[scale]'"
        ) from err
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level=logging.WARNING, include_dashboard=False)
    return ray
