"""Say what a folder holds besides the files to read, so that nothing is left out in silence."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from nip_audio.audio.archives import is_archive, open_archive
from nip_audio.audio.manifest import PassedOver, walk_folder
from nip_audio.audio.names import one_spelling
from nip_audio.core.modality import Modality

__all__ = ["Survey", "survey_folder"]

_NAMED = 100
_SAID = 5
_PARTS = re.compile(
    r"(wav|flac|aac|m4a|mp3|opus|audio|clips|data)s?\d*(_\w+)?"
    r"|(train|dev|test|valid|validation|eval)([-_]\w+)*",
    re.IGNORECASE,
)
"""Names that corpora give to their parts; the speakers are one level below."""


@dataclass(frozen=True)
class Survey:
    """What a folder holds besides the files to read.

    Attributes:
        files: Number of files to read.
        endings: Number of files passed over, by their ending; ``""`` is none.
        names: Ids of the first hundred files passed over.
        hidden: Ids of the hidden files and folders, and those of the system, that were skipped.
        without: Folders of the first level without any file to read.
        too_high: Folders one level deeper that look like the speakers; empty if those of the first
            level do.
        parts: Folders of the first level that hold them.
    """

    files: int = 0
    endings: Mapping[str, int] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    too_high: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()

    @property
    def passed_over(self) -> int:
        """Number of files passed over because of their ending."""
        return sum(self.endings.values())

    def without_folders(self) -> Survey:
        """Return the survey without what it says of folders, where they are no speakers."""
        return replace(self, without=(), too_high=(), parts=())

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, as summary.json has them."""
        return {
            "files": self.passed_over,
            "endings": dict(self.endings),
            "names": list(self.names),
            "hidden": list(self.hidden[:_NAMED]),
            "groups_without_files": list(self.without[:_NAMED]),
        }

    def notes(self, modality: Modality) -> list[str]:
        """Return what a person should know about a folder of this modality, in sentences."""
        plural, notes = modality.plural, []
        if self.endings:
            most = sorted(self.endings.items(), key=lambda one: (-one[1], one[0]))
            kinds = ", ".join(f"{n} {ending or 'without an ending'}" for ending, n in most)
            notes.append(
                f"{self.passed_over} of {self.passed_over + self.files} files passed over, because "
                f"their endings are not those of {plural}: {kinds} "
                f"({_listed(self.names, self.passed_over)})"
            )
        if self.hidden:
            notes.append(
                f"skipped as hidden, or as folders of the system: {_listed(self.hidden)}; if they "
                f"hold {plural} to be read, rename them"
            )
        if self.without:
            notes.append(f"no {plural} in {_listed(self.without)}")
        if self.too_high and modality.folder_is_group:
            which = " or ".join(self.parts[:_SAID])
            notes.append(
                "each folder of the first level is taken for one speaker, here "
                f"{_listed(self.parts)}; if the speakers are {_listed(self.too_high)}, pass the "
                f"folder {which} instead, or a manifest that names the speakers"
            )
        return notes


def survey_folder(
    folder: Path,
    suffixes: Container[str],
    *,
    follow_links: bool = False,
    leave_out: Path | None = None,
) -> Survey:
    """Walk a folder, and say what it holds besides the files to read.

    Args:
        folder: Folder to survey.
        suffixes: File name endings of the files to read.
        follow_links: Whether links that lead out of the folder are followed.
        leave_out: Folder inside ``folder`` that holds results; it is not spoken of.

    Raises:
        InputError: If ``folder`` is not a folder or cannot be read.
    """
    results = _inside(leave_out, folder)
    endings: Counter[str] = Counter()
    below: dict[str, set[str]] = defaultdict(set)
    names: list[str] = []
    hidden: list[str] = []
    files, loose = 0, False
    for one in walk_folder(folder, suffixes, follow_links=follow_links):
        if results is not None and one.id.startswith(results):
            continue
        parts = one.id.split("/")
        if not isinstance(one, PassedOver):
            files += 1
            loose = loose or one.speaker is None
            if one.speaker is not None:
                below[one.speaker].add(parts[1] if len(parts) > 2 else "")
        elif one.hidden:
            hidden.append(one.id)
        else:
            endings[PurePosixPath(one.id).suffix.lower()] += 1
            if len(names) < _NAMED:
                names.append(one.id)
    too_high = () if loose else _too_high(below)
    return Survey(
        files,
        dict(sorted(endings.items())),
        tuple(names),
        tuple(hidden),
        tuple(sorted(_groups(folder, hidden, results) - below.keys())),
        too_high,
        tuple(sorted(below)) if too_high else (),
    )


def _too_high(below: Mapping[str, set[str]]) -> tuple[str, ...]:
    """Return the folders of the second level if they, and not the first level, look like groups.

    That is so if there is only one folder, or all have names such as ``wav``, ``dev`` and
    ``train-clean-100``, and no file lies in them, but in at least two sub-folders.
    """
    corpus = len(below) == 1 or all(_PARTS.fullmatch(name) for name in below)
    second = [name for names in below.values() for name in names]
    if not below or not corpus or "" in second or len(second) < 2:
        return ()
    return tuple(sorted(second))


def _groups(folder: Path, hidden: list[str], results: str | None) -> set[str]:
    """Return the folders of the first level, whether they hold files or not."""
    skipped = {*hidden, results}
    if is_archive(folder):
        found = list(open_archive(folder).folders)
    else:
        with os.scandir(folder) as entries:
            found = [entry.name for entry in entries if entry.is_dir()]
    return {one_spelling(name) for name in found if f"{one_spelling(name)}/" not in skipped}


def _inside(inner: Path | None, folder: Path) -> str | None:
    """Return a folder's path below another one, with a slash; None if it is not inside."""
    if inner is None:
        return None
    path, root = inner.resolve(), folder.resolve()
    return f"{path.relative_to(root).as_posix()}/" if root in path.parents else None


def _listed(names: tuple[str, ...], number: int | None = None) -> str:
    """Return the first of a number of names in words."""
    more = (len(names) if number is None else number) - _SAID
    return ", ".join(names[:_SAID]) + (f" and {more} more" if more > 0 else "")
