"""Say what the toolkit asks of a modality, without naming one.

``nip_audio.audio`` and ``nip_audio.image`` each export one ``MODALITY``, which satisfies
``Modality``; ``nip_audio.models.modalities`` finds the one that a model takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor

from nip_audio.core.adapter import Bounds
from nip_audio.core.noise import Noise
from nip_audio.errors import FileError

__all__ = ["Card", "Endings", "FileContent", "Modality", "Reader", "TriggerPlan"]


class FileContent(Protocol):
    """Content of one file."""

    @property
    def raw(self) -> Tensor:
        """Raw input of a model, without a batch axis."""
        ...

    @property
    def sha256(self) -> str:
        """SHA-256 of the file's bytes."""
        ...

    @property
    def noise_key(self) -> str:
        """Text from which, together with the seed, the noise of a measurement is drawn."""
        ...

    @property
    def content_sha256(self) -> str:
        """SHA-256 of ``raw``; it does not depend on the file's name or encoding."""
        ...

    @property
    def changes(self) -> tuple[str, ...]:
        """What reading the file changed, in words."""
        ...


class Reader(Protocol):
    """Reads and writes the files of one modality as one model takes them."""

    @property
    def tag(self) -> str:
        """Name of the modality."""
        ...

    @property
    def suffixes(self) -> frozenset[str]:
        """File name endings of the files that it reads."""
        ...

    def read(self, file: Any) -> Any:
        """Read the ``FileContent`` of one file of a source.

        Raises:
            FileError: If it cannot be used.
        """
        ...

    def load(self, path: Path | str) -> Any:
        """Read the ``FileContent`` of a path, or of a URL where the modality allows one.

        Raises:
            FileError: If it cannot be used.
        """
        ...

    def save(self, x: Tensor, path: Path, *, force: bool = False) -> None:
        """Write one raw input, whole or not at all, with the precision of its file format.

        Raises:
            OutputError: If the file exists and ``force`` is false, or cannot be written.
        """
        ...

    def read_back(self, path: Path) -> Any:
        """Read the ``FileContent`` of a file that ``save`` wrote, whatever it holds."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain JSON values, for ``Modality.reader_of_json``."""
        ...


class Card(Protocol):
    """What a modality reads of a model card."""

    @property
    def name(self) -> str:
        """Name of the model."""
        ...

    @property
    def data(self) -> Mapping[str, Any]:
        """Content of the card."""
        ...


@dataclass(frozen=True)
class TriggerPlan:
    """Layers at which backdoor triggers are searched for, as slices of a card's default taps.

    Attributes:
        changes: Taps at which the changes of neurons under noise are measured.
        outputs: Taps at which the outputs of neurons without noise are measured.
    """

    changes: slice
    outputs: slice

    def layers(self, default_taps: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the layers for changes and those for outputs.

        A model with too few taps uses its first one for both.
        """
        first = default_taps[:1]
        return default_taps[self.changes] or first, default_taps[self.outputs] or first


@dataclass(frozen=True)
class Endings:
    """Endings of a written file and of the JSON sidecar beside it.

    Attributes:
        file: Ending of the file, such as ``.png``.
        kept: Whether the sidecar's name keeps that ending before its own.
    """

    file: str
    kept: bool = False

    def sidecar(self, written: Path) -> Path:
        """Return the path of the sidecar of a written file."""
        return written.with_name(f"{written.name}.json" if self.kept else f"{written.stem}.json")


class Modality(Protocol):
    """Everything in which the files of one modality differ from those of another."""

    @property
    def name(self) -> str:
        """Name of the modality, as model cards give it."""
        ...

    @property
    def error(self) -> type[FileError]:
        """Class of the errors of files that cannot be used."""
        ...

    @property
    def plural(self) -> str:
        """Word for several files."""
        ...

    @property
    def expected(self) -> str:
        """File formats in words, for the error when no file was found."""
        ...

    @property
    def suffixes(self) -> frozenset[str]:
        """File name endings of the files."""
        ...

    @property
    def bounds(self) -> Bounds:
        """Range of raw input values."""
        ...

    @property
    def parts(self) -> tuple[str, ...]:
        """Modules that every model of this modality has."""
        ...

    @property
    def noises(self) -> tuple[Noise, ...]:
        """Noises of the detector."""
        ...

    @property
    def trigger_plan(self) -> TriggerPlan:
        """Layers at which backdoor triggers are searched for."""
        ...

    @property
    def default_eps(self) -> float:
        """Largest change that an attack may make by default."""
        ...

    @property
    def attack_level(self) -> Literal["raw", "input"]:
        """What an attack on a file changes: raw input, or the model's own input."""
        ...

    @property
    def default_goal(self) -> str:
        """What the attacker of a file wants by default."""
        ...

    @property
    def attacked(self) -> Endings:
        """Endings of an attacked file, after the name of the attack."""
        ...

    @property
    def purified(self) -> Endings:
        """Endings of a purified file."""
        ...

    @property
    def folder_is_group(self) -> bool:
        """Whether the files of one folder depend on each other."""
        ...

    @property
    def missing_options(self) -> Mapping[str, frozenset[str]]:
        """Options that do not apply, by command."""
        ...

    def channels(self, card: Card) -> int:
        """Return the number of channels of a model's own input."""
        ...

    def reader(
        self, card: Card, *, max_duration_s: float | None = None, channel: int | None = None
    ) -> Reader:
        """Return how files are read for a model.

        Args:
            card: Card of the model.
            max_duration_s: Longest duration of a file, where files have one; None is the default.
            channel: Number of the channel to read, from 1, where files have several; None is the
                default.
        """
        ...

    def reader_of_json(self, settings: Mapping[str, Any]) -> Reader:
        """Return the reader whose settings ``Reader.to_json`` returned.

        Raises:
            TypeError: If they are other values.
        """
        ...

    def listed(
        self, source: Path, data_root: str | None, *, follow_links: bool
    ) -> list[Any] | None:
        """Return the files that a manifest lists; None if ``source`` is to be walked as a folder.

        Raises:
            InputError: If the manifest cannot be read, or this modality has none.
        """
        ...

    def require_same_input(self, first: Card, other: Card, *, level: str) -> None:
        """Refuse two models for which noise of one level is not the same noise.

        Raises:
            InputError: If it is not.
        """
        ...
