"""Rows that detectors judge, measured once: by content, so that an interrupted run goes on."""

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
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.state import write_atomic
from nip_audio.detectors.base import Measure
from nip_audio.evaluation.seeds import seed_of

__all__ = ["Measurable", "MeasuredRows", "RowBank"]

Array = NDArray[np.float64]

_VERSION = 1


class Measurable(Protocol):
    """A system of whatever modality, as far as measuring goes."""

    @property
    def model(self) -> InstrumentedModel:
        """With the head under evaluation."""
        ...

    @property
    def identity(self) -> str:
        """Hash of everything that its answers depend on."""
        ...


@dataclass(frozen=True)
class MeasuredRows:
    """What a measure says of some clips.

    Attributes:
        rows: (n, F).
        seconds: Processor time a clip.
    """

    rows: Array
    seconds: float


@dataclass(frozen=True)
class RowBank:
    """Measures clips of one system, or reads what was measured of the very same before.

    Attributes:
        system: Whose model.
        folder: Where rows are kept.
        seed: Of the measures' noise; each clip's own depends on its content too.
        learned: Fitted measures, by what they were fitted to.
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
            measure: Fitted to ``fitted_to`` first, if there are any and rows are missing.
            clips: (N,) raw input each.
            fitted_to: Clean clips, none of them among ``clips``: what a measure says of those that
                it learned from is biased.
        """
        settings = json.dumps(measure.settings(), sort_keys=True)
        contents = [samples_sha256(clip) for clip in clips]
        known = [samples_sha256(clip) for clip in fitted_to]
        parts = [self.system.identity, settings, str(self.seed), str(_VERSION), *known]
        digest = hashlib.sha256(":".join([*parts, "of", *contents]).encode())
        path = self.folder / f"{digest.hexdigest()[:24]}.safetensors"
        if path.exists():
            kept = load(path.read_bytes())
            return MeasuredRows(kept["rows"].numpy(), float(kept["seconds"]))
        if fitted_to:
            measure = self._fitted(measure, fitted_to, ":".join(parts))
        started = time.process_time()
        rows = [
            measure.measure(self.system.model, Batch(clip[None]), generator=self._noise(content))
            for clip, content in zip(clips, contents, strict=True)
        ]
        made = MeasuredRows(np.stack(rows), (time.process_time() - started) / len(clips))
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            "rows": torch.from_numpy(made.rows).contiguous(),
            "seconds": torch.tensor(made.seconds, dtype=torch.float64),
        }
        write_atomic(path, save(tensors), force=True)
        return made

    def _fitted(self, measure: Measure, clips: Sequence[Tensor], key: str) -> Measure:
        if key not in self.learned:
            generator = torch.Generator().manual_seed(seed_of(self.seed, key))
            items = [Batch(clip[None]) for clip in clips]
            self.learned[key] = measure.fit(self.system.model, items, generator=generator)
        return self.learned[key]

    def _noise(self, content: str) -> torch.Generator:
        return torch.Generator().manual_seed(seed_of(self.seed, content))
