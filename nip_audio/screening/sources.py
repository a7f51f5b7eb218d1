"""What is to be screened: a folder as it is now, or the recordings of a manifest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from nip_audio.audio.io import AUDIO_SUFFIXES
from nip_audio.audio.manifest import Recording, walk_files
from nip_audio.errors import InputError

__all__ = ["FolderSource", "ManifestSource", "Source"]


class Source(Protocol):
    """Recordings, which can be gone through more than once; those of a speaker lie together."""

    @property
    def name(self) -> str:
        """What a run belongs to: another name is another run."""
        ...

    def __iter__(self) -> Iterator[Recording]:
        """Go through all of them, in the same order every time."""
        ...

    def find(self, recording_id: str) -> Recording:
        """Return one of them."""
        ...


@dataclass(frozen=True)
class FolderSource:
    """A folder, walked anew each time: what was added meanwhile is there, what is gone is not.

    Attributes:
        folder: One sub-folder a speaker, or flat.
        follow_links: Go on where links lead out of it.
        suffixes: Endings of the files that are meant.
    """

    folder: Path
    follow_links: bool = False
    suffixes: frozenset[str] = AUDIO_SUFFIXES

    @property
    def name(self) -> str:
        """The folder, wherever the command is given from."""
        return str(self.folder.resolve())

    def __iter__(self) -> Iterator[Recording]:
        """Walk it; see ``walk_files``."""
        return walk_files(self.folder, self.suffixes, follow_links=self.follow_links)

    def find(self, recording_id: str) -> Recording:
        """Return the recording that has this path below the folder."""
        parts = recording_id.split("/")
        speaker = parts[0] if len(parts) > 1 else None
        root = None if self.follow_links else self.folder.resolve()
        return Recording(recording_id, self.folder / recording_id, speaker, root=root)


@dataclass(frozen=True)
class ManifestSource:
    """Recordings in a list.

    Attributes:
        path: Of the manifest.
        recordings: What it lists, in its order.

    Raises:
        InputError: If two have the same id.
    """

    path: Path
    recordings: Sequence[Recording]

    def __post_init__(self) -> None:
        """Check."""
        seen: set[str] = set()
        for recording in self.recordings:
            if recording.id in seen:
                raise InputError(
                    f"{self.path} lists {recording.id!r} twice; expected an id of its own for each "
                    "recording"
                )
            seen.add(recording.id)

    @property
    def name(self) -> str:
        """The manifest, wherever the command is given from."""
        return str(self.path.resolve())

    def __iter__(self) -> Iterator[Recording]:
        """Go through them, speaker by speaker in the order in which those first appear."""
        places = {r.speaker: place for place, r in reversed(list(enumerate(self.recordings)))}
        return iter(sorted(self.recordings, key=lambda r: places[r.speaker]))

    def find(self, recording_id: str) -> Recording:
        """Return the recording with this id."""
        return self._by_id[recording_id]

    @cached_property
    def _by_id(self) -> dict[str, Recording]:
        return {recording.id: recording for recording in self.recordings}
