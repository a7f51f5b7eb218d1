"""Define what a screening needs to know about a modality: its words, and how it judges."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nip_audio.audio.manifest import Recording
from nip_audio.core.modality import FileContent, Modality
from nip_audio.errors import FileError, InputError
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.details import Details
from nip_audio.screening.measured import Facts, Measured, SpeechEvidence
from nip_audio.screening.probes import Place, Probe
from nip_audio.screening.records import Finding, Risk, ScreenRecord

__all__ = ["Kind", "Words", "read_once"]


@dataclass(frozen=True)
class Words:
    """Words for the files of one modality.

    Attributes:
        clean: Name of the files in the plural or as a mass noun, such as ``audio``.
        raw: Name of what raw noise is added to, such as ``waveform``.
        input: Name of what input noise is added to, such as ``spectrogram``.
        same: Phrase before the name of a duplicate, such as ``the same recording as``.
        same_by: Name of the number that shows a duplicate.
        many: What files with a backdoor trigger have in common less than others, such as
            ``many voices``.
        group: Name of what the first folder level stands for, such as ``speaker``.
        groups: Plural of ``group``.
        warning: Warning for a run whose files are unlike those of the calibration; ``{outside}``,
            ``{judged}`` and ``{unusual}`` are numbers of files.
        remedies: Remedy of each risk, most severe risk first; a risk without one is not checked.
    """

    clean: str
    raw: str
    input: str
    same: str
    same_by: str
    many: str
    group: str
    groups: str
    warning: str
    remedies: Mapping[Risk, str]


@dataclass(frozen=True)
class Kind(ABC):
    """A modality as a screening sees it: measures, judges and describes its files.

    A subclass says what differs. A check that it leaves out finds nothing.

    Attributes:
        reader: Reader of the files.
    """

    modality: ClassVar[Modality]
    words: ClassVar[Words]
    details: ClassVar[type[Details]]
    finds_altered_copies: ClassVar[bool] = False
    learns_attacks: ClassVar[bool] = False
    has_speech: ClassVar[bool] = False

    reader: Any

    @classmethod
    def lack(cls, item: Any) -> dict[str, str] | None:  # noqa: ARG003
        """Return why a clean file teaches a calibration nothing, as in ``error_of``, or None."""
        return None

    @abstractmethod
    def facts(self, item: Any) -> Facts:
        """Return what is known about a file without the model."""

    @abstractmethod
    def measure(
        self, pretrained: PretrainedModel, item: Any, probe: Probe, *, seed: int
    ) -> Measured:
        """Measure what the detector judges; equal content and seed give equal results."""

    def measure_speech(
        self,
        pretrained: PretrainedModel,  # noqa: ARG002
        item: Any,  # noqa: ARG002
    ) -> SpeechEvidence:
        """Measure what the enrolment gate asks for.

        Raises:
            InputError: If the modality has no speech.
        """
        raise InputError(
            f"the enrolment gate is for recordings, expected none for {self.modality.plural}; "
            "leave it out"
        )

    @classmethod
    @abstractmethod
    def new_detector(cls) -> Any:
        """Return a detector that is not fitted yet; this needs scikit-learn, judging does not."""

    @classmethod
    @abstractmethod
    def names(cls, pretrained: PretrainedModel, asked: bool | None) -> bool:
        """Return whether the evidence is about the predicted label, where ``asked`` is None."""

    @classmethod
    def owner(cls, file: Recording, item: Any) -> str:  # noqa: ARG003
        """Return the group of a clean file, whose files are never in two folds: its content."""
        return str(item.content_sha256)

    def unfit(self, file: Recording, facts: Any) -> FileError | None:  # noqa: ARG002
        """Return why a clean-only calibration can learn nothing from a file; None if it can."""
        return None

    def noisy_copy(self, item: Any, largest_rms: float, seed: int) -> Any:  # noqa: ARG002
        """Return a copy with white noise, for a calibration that tolerates noise.

        Raises:
            InputError: If the modality has none.
        """
        raise InputError(
            f"tolerated noise of {largest_rms} RMS is for recordings, expected none for "
            f"{self.modality.plural}; leave it out"
        )

    @abstractmethod
    def reference(
        self,
        owners: Sequence[str],
        facts: Sequence[Any],
        measured: Sequence[Any],
        *,
        folds: int,
    ) -> Mapping[str, Any]:
        """Return the fields of a calibration that this modality has for itself."""

    @classmethod
    def calibration_note(cls, calibration: Calibration) -> str | None:  # noqa: ARG003
        """Return what a calibration lacks, in words; None if it lacks nothing."""
        return None

    @classmethod
    @abstractmethod
    def details_of(cls, facts: Any, measured: Any, calibration: Calibration) -> Details:
        """Return the details of a file's record."""

    @classmethod
    @abstractmethod
    def outside(cls, details: Any, facts: Any, calibration: Calibration) -> list[Finding]:
        """Return why the detector's result means little for a file."""

    @classmethod
    def place(cls, facts: Any, measured: Any, calibration: Calibration) -> Place:  # noqa: ARG003
        """Return with which clean files a file is compared."""
        return Place()

    @classmethod
    def compared(cls, item: Any) -> NDArray[np.floating]:
        """Return what of a file is correlated with another, to find altered copies."""
        return np.asarray(item.raw.numpy())

    @classmethod
    def hears(cls, facts: Any) -> bool:  # noqa: ARG003
        """Return whether a file holds anything that the detector can judge."""
        return True

    @classmethod
    def damage(
        cls,
        details: Any,  # noqa: ARG003
        facts: Any,  # noqa: ARG003
        calibration: Calibration,  # noqa: ARG003
    ) -> list[Finding]:
        """Return what is broken about a file."""
        return []

    @classmethod
    def compare(
        cls,
        records: Sequence[ScreenRecord],
        measured: Sequence[Any],  # noqa: ARG003
        calibration: Calibration,  # noqa: ARG003
    ) -> list[ScreenRecord]:
        """Compare the files of one group with each other, and add what does not fit."""
        return list(records)


def read_once(
    files: Iterable[Recording],
    kind: Kind,
    failures: list[FileError],
    progress: Callable[[Recording], None],
) -> Iterator[tuple[Recording, FileContent]]:
    """Read files for a calibration, and leave out those whose content was read before.

    Args:
        files: Files to read.
        kind: Modality of the files.
        failures: List to which the errors of unreadable files and copies are appended.
        progress: Called for every file, after the caller has processed its content.

    Yields:
        Each usable file and its content.
    """
    contents: set[str] = set()
    for file in files:
        try:
            item = kind.reader.read(file)
            if (lack := kind.lack(item)) is not None:
                raise kind.modality.error(file.path, **lack)
            content = item.content_sha256
            if content in contents:
                raise kind.modality.error(
                    file.path,
                    code="duplicate",
                    found=f"{kind.words.same.removesuffix(' as')} is already in the calibration",
                    remedy=f"add other {kind.modality.plural}, because copies do not allow a lower "
                    "false-positive rate",
                )
        except FileError as err:
            failures.append(err)
        else:
            contents.add(content)
            yield file, item
        progress(file)
