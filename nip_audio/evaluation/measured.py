"""Measure the rows that detectors score, and keep them by content, so that none is made twice."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor

from nip_audio.audio.io import samples_sha256
from nip_audio.core.adapter import Batch
from nip_audio.core.cache import keep_or_make
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.seeds import generator_of
from nip_audio.detectors.base import Measure

__all__ = ["Measurable", "MeasuredRows", "RowBank"]

Array = NDArray[np.float64]

_VERSION = 1


class Measurable(Protocol):
    """A system of any modality, as far as measuring needs it."""

    @property
    def model(self) -> InstrumentedModel:
        """Model with the head under evaluation."""
        ...

    @property
    def identity(self) -> str:
        """Hash of everything that the system's outputs depend on."""
        ...


@dataclass(frozen=True)
class MeasuredRows:
    """Rows that a measure returned for some clips.

    Attributes:
        rows: (n, F) values, one row per clip.
        seconds: Processor time per clip, in seconds.
    """

    rows: Array
    seconds: float


@dataclass(frozen=True)
class RowBank:
    """Measures clips on one system, and reuses the rows of clips with the same content.

    Attributes:
        system: System whose model is measured.
        folder: Folder where rows are kept.
        seed: Seed of the measures' noise; a clip's noise also depends on its content.
        learned: Fitted measures, by what they were fitted on.
    """

    system: Measurable
    folder: Path
    seed: int
    learned: dict[str, Measure] = field(default_factory=dict)

    def rows(
        self, measure: Measure, clips: Sequence[Tensor], *, fitted_to: Sequence[Tensor] = ()
    ) -> MeasuredRows:
        """Measure clips.

        Args:
            measure: Measure to apply; if rows are missing, it is first fitted on ``fitted_to``.
            clips: Raw inputs, (N,) each.
            fitted_to: Clean clips to fit the measure on, none of them among ``clips``, because a
                measure is biased on the clips that it was fitted on.
        """
        settings = json.dumps(measure.settings(), sort_keys=True)
        contents = [samples_sha256(clip) for clip in clips]
        known = [samples_sha256(clip) for clip in fitted_to]
        parts = [self.system.identity, settings, str(self.seed), str(_VERSION), *known]
        digest = hashlib.sha256(":".join([*parts, "of", *contents]).encode())
        path = self.folder / f"{digest.hexdigest()[:24]}.safetensors"

        def make() -> MeasuredRows:
            fitted = measure
            if fitted_to:
                fitted = self._fitted(measure, fitted_to, ":".join(parts))
            started, model = time.process_time(), self.system.model
            rows = [
                fitted.measure(model, Batch(clip[None]), generator=generator_of(self.seed, content))
                for clip, content in zip(clips, contents, strict=True)
            ]
            return MeasuredRows(np.stack(rows), (time.process_time() - started) / len(clips))

        return keep_or_make(path, make, dump=_dump, load=_load)

    def _fitted(self, measure: Measure, clips: Sequence[Tensor], key: str) -> Measure:
        if key not in self.learned:
            generator = generator_of(self.seed, key)
            items = [Batch(clip[None]) for clip in clips]
            self.learned[key] = measure.fit(self.system.model, items, generator=generator)
        return self.learned[key]


def _dump(made: MeasuredRows) -> bytes:
    seconds = torch.tensor(made.seconds, dtype=torch.float64)
    return save({"rows": torch.from_numpy(made.rows).contiguous(), "seconds": seconds})


def _load(data: bytes) -> MeasuredRows:
    kept = load(data)
    return MeasuredRows(kept["rows"].numpy(), float(kept["seconds"]))
