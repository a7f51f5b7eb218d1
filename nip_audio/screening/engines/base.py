"""Define what an engine does, and how another process builds the same measurer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from nip_audio.audio.manifest import Recording
from nip_audio.errors import StateError
from nip_audio.models.pretrained import load_pretrained
from nip_audio.screening.kind import Kind
from nip_audio.screening.measure import FileMeasurer
from nip_audio.screening.measured import MeasuredFile
from nip_audio.screening.probes import Probe

__all__ = ["Begun", "Engine", "MeasurerRecipe"]

Begun = Callable[[Recording], None]
"""Callback with the file that is measured next."""


class Engine(Protocol):
    """Measures many files, in this process or in others."""

    def measure(
        self,
        measurer: FileMeasurer,
        recordings: Iterable[Recording],
        *,
        begun: Begun = lambda recording: None,
    ) -> Iterator[MeasuredFile]:
        """Measure files and yield the results in the order given.

        The numbers equal those of ``measurer`` called on one thread in this process. Only a bounded
        number of files is in progress at a time. A file that cannot be read, or that crashes the
        process that reads it, gives a result with an error.

        Args:
            measurer: Measurer of single files.
            recordings: Files to measure.
            begun: Called before a file is measured in this very process, which its content may
                crash, so that the next run can be careful with it.
        """
        ...


@dataclass(frozen=True)
class MeasurerRecipe:
    """What another process makes the same measurer from, without the weights of the model.

    Attributes:
        model: Folder or source of the model.
        model_id: Identity that the model must have.
        probe: What is measured, with the purifier if its response is.
        kind: Modality of the files and how they are read.
        seed: Seed of the noise generator.
        triggers: Whether to measure the evidence for backdoor triggers.
        speech: Whether to measure what the enrolment gate asks for.
    """

    model: str
    model_id: str
    probe: Probe
    kind: Kind
    seed: int
    triggers: bool
    speech: bool

    @staticmethod
    def of(measurer: FileMeasurer) -> MeasurerRecipe:
        """Return the recipe of an existing measurer."""
        card = measurer.pretrained.card
        return MeasurerRecipe(
            measurer.pretrained.origin or str(card.directory),
            card.model_id,
            measurer.probe,
            measurer.kind,
            measurer.seed,
            measurer.triggers,
            measurer.speech,
        )

    def make(self) -> FileMeasurer:
        """Load the model and return the measurer.

        Raises:
            StateError: If the folder now holds another model.
        """
        pretrained = load_pretrained(self.model)
        if pretrained.model_id != self.model_id:
            raise StateError(
                f"{self.model} is model {pretrained.model_id[:12]} on this machine, "
                f"expected {self.model_id[:12]}; put the same model on every machine"
            )
        return FileMeasurer(
            pretrained, self.probe, self.kind, self.seed, self.triggers, self.speech
        )
