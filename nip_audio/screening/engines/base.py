"""What every engine promises."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nip_audio.audio.manifest import Recording
from nip_audio.core.nccr import NccrConfig
from nip_audio.errors import StateError
from nip_audio.models.pretrained import load_pretrained
from nip_audio.screening.measure import FileMeasurer
from nip_audio.screening.measured import MeasuredFile
from nip_audio.screening.reading import Kind

__all__ = ["Engine", "MeasurerRecipe"]


class Engine(Protocol):
    """Measures many files."""

    def measure(
        self, measurer: FileMeasurer, recordings: Iterable[Recording]
    ) -> Iterator[MeasuredFile]:
        """Measure files, in the order given, a bounded number at a time.

        The numbers are those of ``measurer`` called on one thread in this process. A file that
        cannot be read, or that brings down the process that reads it, is a result like any other.
        """
        ...


@dataclass(frozen=True)
class MeasurerRecipe:
    """From what another process makes the same measurer: plain values, no weights.

    Attributes:
        directory: Of the model.
        model_id: That it must have there.
        config: ``NccrConfig.to_json``.
        names: As the measurer's.
        kind: Of the files.
        seed: Of the noise.
        triggers: As the measurer's.
    """

    directory: Path
    model_id: str
    config: dict[str, Any]
    names: bool
    kind: Kind
    seed: int
    triggers: bool

    @staticmethod
    def of(measurer: FileMeasurer) -> MeasurerRecipe:
        """Return the recipe of a measurer."""
        card = measurer.pretrained.card
        return MeasurerRecipe(
            card.directory,
            card.model_id,
            measurer.config.to_json(),
            measurer.names,
            measurer.kind,
            measurer.seed,
            measurer.triggers,
        )

    def make(self) -> FileMeasurer:
        """Load the model and return a measurer.

        Raises:
            StateError: If there is another model now.
        """
        pretrained = load_pretrained(self.directory)
        if pretrained.model_id != self.model_id:
            raise StateError(
                f"{self.directory} holds model {pretrained.model_id[:12]} here, the run is for "
                f"{self.model_id[:12]}; put the same model on every machine"
            )
        config = NccrConfig.from_json(self.config)
        return FileMeasurer(pretrained, config, self.names, self.kind, self.seed, self.triggers)
