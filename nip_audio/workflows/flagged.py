"""Write purified copies of the files that a screening flagged; originals are never modified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nip_audio.core.files import LARGEST_JSON, read_regular
from nip_audio.core.strict_json import load_json
from nip_audio.errors import FileError, InputError, OutputError
from nip_audio.models.modalities import MODALITIES
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purifiers.base import Purifier
from nip_audio.purifiers.registry import make_purifier
from nip_audio.screening.records import Verdict
from nip_audio.screening.results import Results
from nip_audio.screening.sources import FolderSource, Source
from nip_audio.workflows.files import Outcome, PlannedFile
from nip_audio.workflows.outputs import short_name
from nip_audio.workflows.purify_files import FilePurifier

__all__ = [
    "PURIFIED",
    "PurifiedRun",
    "purify_flagged",
    "refuse_copies_inside",
    "shipped_purifier",
]

_LONGEST_PATH = 900  # characters, of up to four bytes; systems take 4096 bytes with the folder
_MOST_FOLDERS = 100

PURIFIED: tuple[Verdict, ...] = ("adversarial",)
"""Verdicts of the files to purify; purification does not repair other flaws."""


@dataclass(frozen=True)
class PurifiedRun:
    """Result of purifying flagged files.

    Attributes:
        done: Files purified in this run.
        earlier: Number of files purified by an earlier run of the same command.
        failures: Errors of the files that could no longer be read.
    """

    done: Sequence[Outcome] = ()
    earlier: int = 0
    failures: Sequence[FileError] = ()


def shipped_purifier(pretrained: PretrainedModel) -> Purifier:
    """Load the guided purifier that is shipped with a model.

    Raises:
        InputError: If the model has no purifier.
    """
    path = pretrained.card.purifier_path
    if path is None:
        raise InputError(
            f"model {pretrained.card.name} comes without a purifier, which purification needs; "
            "train one with nip-audio fit-purifier, and purify with nip-audio purify --purifier "
            "FILE"
        )
    model, model_id = pretrained.model, pretrained.model_id
    return make_purifier("guided", model=model, model_id=model_id, settings={"path": path})


def refuse_copies_inside(source: Source, out: Path) -> None:
    """Refuse to write copies into the folder that is screened.

    The next screening, and whoever enrols from the folder, would take them for a new speaker.

    Raises:
        OutputError: If ``out`` is the folder that is screened, or inside it.
    """
    if not isinstance(source, FolderSource):
        return
    inner, outer = out.resolve(), source.folder.resolve()
    if outer in (inner, *inner.parents):
        raise OutputError(
            f"{out} is inside {source.folder}, expected a folder outside of it, because purified "
            "copies would be enrolled from there as a new speaker; choose another folder for the "
            "copies"
        )


def purify_flagged(
    results: Results,
    source: Source,
    purifier: FilePurifier,
    out: Path,
    *,
    progress: Callable[[], None] = lambda: None,
) -> PurifiedRun:
    """Write a purified copy of each file that a screening judged adversarial.

    An interrupted run can be resumed: files whose sidecar, the last output to be written, is
    already in ``out`` are skipped, unless it is that of another content. A file whose id is no name
    for a file below ``out`` is a failure and keeps no other from being purified.

    Args:
        results: Results of the screening.
        source: Source of the files that were screened.
        purifier: Model and purifier to apply.
        out: Folder for the results and sidecars; each file keeps the path or id of its record.
        progress: Function called after each file.

    Raises:
        OutputError: If ``out`` is inside the folder that was screened, or an output cannot be
            written.
    """
    refuse_copies_inside(source, out)
    reader, endings = purifier.reader, MODALITIES[purifier.reader.tag].purified
    done: list[Outcome] = []
    failures: list[FileError] = []
    earlier = 0
    for record in results.files():
        if record.verdict not in PURIFIED:
            continue
        try:
            written = out / _below(record.id, endings.file)
            if _is_of(endings.sidecar(written), record.sha256):
                earlier += 1
            else:
                file = source.find(record.id)
                item = reader.read(file)
                planned = PlannedFile(file.path, written)
                done.append(purifier.purify_read(planned, item, screened=record, force=True))
        except FileError as err:
            failures.append(err)
        progress()
    return PurifiedRun(done, earlier, failures)


def _is_of(sidecar: Path, sha256: str | None) -> bool:
    """Tell whether a sidecar describes the copy of this content; None is any content."""
    try:
        found = load_json(read_regular(sidecar, most=LARGEST_JSON))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and sha256 in (None, found.get("source_sha256"))


def _below(recording_id: str, ending: str) -> Path:
    """Return an id as a relative path; an id from a manifest must not lead out of the folder.

    Raises:
        FileError: If the id cannot be such a path.
    """
    path = PurePosixPath(recording_id)
    if not path.parts:
        path = PurePosixPath("..")
    # keep the original suffix in the name: take.flac and take.ogg are two files
    stem = path.stem if path.suffix == ending else path.name
    parts = [*(short_name(part, "") for part in path.parts[:-1]), short_name(stem, ending)]
    fits = len(parts) <= _MOST_FOLDERS and sum(map(len, parts)) <= _LONGEST_PATH
    if path.is_absolute() or ".." in path.parts or "\0" in recording_id or not fits:
        shown = recording_id if len(recording_id) < 60 else f"{recording_id[:50]}…"
        raise FileError(
            ascii(shown),
            code="bad_name",
            found="its id is not a valid file name, expected one like speaker/take-1",
            remedy="change it in the manifest",
        )
    return Path(*parts)
