"""Find a model of the Hugging Face hub in the local cache, or download it.

Where there is no network, or ``HF_HUB_OFFLINE=1`` is set, the cache alone is used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nip_audio.errors import MissingDependencyError, ModelCardError

__all__ = ["HubDirectory", "hub_directory", "local_directory", "split_hub_id"]

_ID = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9_][\w./-]{0,199}", re.ASCII)


class HubDirectory(NamedTuple):
    """A model's files in the cache.

    Attributes:
        directory: Directory of the files, which are links.
        commit: Commit of the hub's repository, which names exactly these files.
        root: Folder that the links stay inside; pass it to ``read_plain``.
    """

    directory: Path
    commit: str
    root: Path


def split_hub_id(text: str) -> tuple[str, str | None]:
    """Split ``OWNER/NAME[@REVISION]``.

    Raises:
        ModelCardError: If the text has another form.
    """
    name, at, revision = text.partition("@")
    if not _ID.fullmatch(name) or (at and not _REVISION.fullmatch(revision)) or ".." in text:
        raise ModelCardError(
            f"{text!r} is no directory and no id of the hub, expected an existing directory or "
            "OWNER/NAME[@REVISION]"
        )
    return name, revision or None


def local_directory(location: str, *, owner: str = "") -> Path | None:
    """Return the directory that a text names; None if there is none, so that it may be a hub id.

    Args:
        location: Path, or id of the hub.
        owner: Start of the ids of this kind of models.

    Raises:
        ModelCardError: If it is both, as in a folder of strangers' files that holds such a folder.
    """
    if not Path(location).is_dir():
        return None
    if location.startswith(owner) and _ID.fullmatch(location.partition("@")[0]):
        raise ModelCardError(
            f"{location!r} is an id of the hub and a folder here, expected only one of them; write "
            f"./{location} for the folder, or run from another folder"
        )
    return Path(location)


def hub_directory(
    hub_id: str, revision: str | None = None, *, files: Sequence[str] | None = None
) -> HubDirectory:
    """Return the directory of a model of the hub, downloaded if the cache lacks it.

    Args:
        hub_id: ``OWNER/NAME``.
        revision: Branch, tag or commit; None is the main branch.
        files: Names of the files that are needed, so that no others are downloaded; None means all.
            The caller checks that they are there.

    Raises:
        ModelCardError: If there is no such model, it needs a licence to be accepted, or it is not
            in the cache and there is no network.
        MissingDependencyError: If huggingface-hub is not installed.
    """
    try:
        from huggingface_hub import errors as hub_errors
        from huggingface_hub import snapshot_download
    except ImportError as err:
        raise MissingDependencyError(
            f"{hub_id} on the hub needs huggingface-hub", extra="hub"
        ) from err
    place = f"{hub_id}@{revision}" if revision else hub_id
    try:
        found = snapshot_download(
            hub_id, revision=revision, allow_patterns=None if files is None else list(files)
        )
    except hub_errors.GatedRepoError as err:
        raise ModelCardError(
            f"{place} asks for consent to its conditions before it can be downloaded; accept them "
            "on its page, then log in with `hf auth login`"
        ) from err
    except hub_errors.LocalEntryNotFoundError as err:
        raise ModelCardError(
            f"{place} is not in the local cache and the hub cannot be reached; download it where "
            f"there is a network (hf download {hub_id}), or pass a directory"
        ) from err
    except (hub_errors.RepositoryNotFoundError, hub_errors.RevisionNotFoundError) as err:
        raise ModelCardError(
            f"{place} does not exist on the hub, or is private; check the name, or log in with "
            "`hf auth login`"
        ) from err
    except (hub_errors.HTTPError, ValueError, OSError) as err:  # type: ignore[attr-defined]
        reason = str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
        raise ModelCardError(
            f"{place} cannot be downloaded ({reason}); try again, or pass a directory"
        ) from err
    directory = Path(found)
    # <cache>/models--OWNER--NAME/snapshots/<commit>, with links to …/models--OWNER--NAME/blobs
    return HubDirectory(directory, directory.name, directory.parents[1])
