"""List the files to screen: those in a folder at this moment, or those of a manifest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from nip_audio.audio.io import AUDIO_SUFFIXES
from nip_audio.audio.manifest import Recording, find_in_folder, walk_files
from nip_audio.audio.names import composed, one_spelling
from nip_audio.audio.speakers import SpeakerPattern
from nip_audio.core.modality import Modality
from nip_audio.errors import InputError
from nip_audio.screening.survey import Survey, survey_folder

__all__ = ["FolderSource", "ManifestSource", "Source", "find_source"]


class Source(Protocol):
    """Files that can be iterated repeatedly; those of one speaker follow each other."""

    @property
    def name(self) -> str:
        """Name of the source; a run can only be continued with the same name."""
        ...

    def __iter__(self) -> Iterator[Recording]:
        """Iterate over all files, in the same order every time."""
        ...

    def find(self, recording_id: str) -> Recording:
        """Return the file with this id.

        Raises:
            KeyError: If a manifest does not list it; a folder does not check.
        """
        ...

    def survey(self, results: Path | None = None) -> Survey:
        """Return what the source holds besides these files.

        Args:
            results: Folder for the results, of which nothing is said if it is in the source.
        """
        ...


@dataclass(frozen=True)
class FolderSource:
    """Files of a folder, which is read again at every iteration.

    Attributes:
        folder: Folder with one sub-folder per speaker, or with files only.
        follow_links: Whether to follow symbolic links that lead out of the folder.
        suffixes: File name endings of the files to screen.
        speakers: Where the speaker's name is in a path; None means the first sub-folder.
    """

    folder: Path
    follow_links: bool = False
    suffixes: frozenset[str] = AUDIO_SUFFIXES
    speakers: SpeakerPattern | None = None

    @property
    def name(self) -> str:
        """Absolute path of the folder."""
        return str(self.folder.resolve())

    def __iter__(self) -> Iterator[Recording]:
        """Iterate over the files that are in the folder now.

        Raises:
            InputError: If the path of a file does not say who its speaker is.
        """
        files = walk_files(self.folder, self.suffixes, follow_links=self.follow_links)
        if (pattern := self.speakers) is None:
            return files
        return _together([replace(file, speaker=pattern.speaker(file.id)) for file in files])

    def find(self, recording_id: str) -> Recording:
        """Return the file with this path below the folder, whether it exists or not."""
        speaker = one_spelling(recording_id.split("/")[0]) if "/" in recording_id else None
        if self.speakers is not None:
            speaker = self.speakers.speaker(recording_id)
        root = None if self.follow_links else self.folder.resolve()
        path = find_in_folder(self.folder, recording_id)
        return Recording(recording_id, path, speaker, root=root)

    def survey(self, results: Path | None = None) -> Survey:
        """Return what the folder holds besides these files."""
        found = survey_folder(
            self.folder, self.suffixes, follow_links=self.follow_links, leave_out=results
        )
        return found if self.speakers is None else found.without_folders()


@dataclass(frozen=True)
class ManifestSource:
    """Recordings that a manifest lists.

    Attributes:
        path: Path of the manifest.
        recordings: Recordings in the order of the manifest.

    Raises:
        InputError: If two recordings have the same id, be it in two Unicode forms.
    """

    path: Path
    recordings: Sequence[Recording]

    def __post_init__(self) -> None:
        """Check that all ids differ."""
        seen: set[str] = set()
        for recording in self.recordings:
            name = composed(recording.id)
            if name in seen:
                raise InputError(
                    f"{self.path} lists the id {recording.id!r} twice, expected different ids; "
                    "rename or remove one of the two"
                )
            seen.add(name)

    @property
    def name(self) -> str:
        """Absolute path of the manifest."""
        return str(self.path.resolve())

    def __iter__(self) -> Iterator[Recording]:
        """Iterate speaker by speaker, in the order in which the speakers first appear."""
        return _together(self.recordings)

    def find(self, recording_id: str) -> Recording:
        """Return the recording with this id.

        Raises:
            KeyError: If the manifest does not list it.
        """
        return self._by_id[recording_id]

    def survey(self, results: Path | None = None) -> Survey:  # noqa: ARG002
        """Return a survey of nothing else: a manifest lists what is to be read."""
        return Survey(len(self.recordings))

    @cached_property
    def _by_id(self) -> dict[str, Recording]:
        return {recording.id: recording for recording in self.recordings}


def _together(recordings: Sequence[Recording]) -> Iterator[Recording]:
    """Iterate speaker by speaker, in the order in which the speakers first appear."""
    places = {r.speaker: place for place, r in reversed(list(enumerate(recordings)))}
    return iter(sorted(recordings, key=lambda r: places[r.speaker]))


def find_source(
    modality: Modality,
    source: Path,
    data_root: str | None,
    *,
    follow_links: bool,
    speaker_from: str | None = None,
) -> Source:
    """Return a folder, or a manifest, as files to screen.

    Args:
        modality: Modality of the files.
        source: Folder or manifest.
        data_root: Folder or URL that replaces ``$data_root`` in a manifest.
        follow_links: Whether to follow symbolic links that lead out.
        speaker_from: Pattern of paths in a folder (``SpeakerPattern``); None means that the first
            sub-folder is the speaker.

    Raises:
        InputError: If the manifest cannot be read, or the modality has none, or a pattern is
            invalid or given for a manifest.
    """
    speakers = None if speaker_from is None else SpeakerPattern(speaker_from)
    listed = modality.listed(source, data_root, follow_links=follow_links)
    if listed is None:
        return FolderSource(source, follow_links, modality.suffixes, speakers)
    if speakers is not None:
        raise InputError(
            f"got a pattern of speakers ({speaker_from!r}) and the manifest {source}, expected a "
            "folder, because a manifest names its speakers; leave the pattern out"
        )
    return ManifestSource(source, listed)
