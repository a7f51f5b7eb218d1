"""Write purified copies of the files that a screening flagged; originals are never modified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nip_audio.errors import FileError, InputError
from nip_audio.models.modalities import MODALITIES
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purifiers.base import Purifier
from nip_audio.purifiers.registry import make_purifier
from nip_audio.screening.records import Verdict
from nip_audio.screening.results import Results
from nip_audio.screening.sources import Source
from nip_audio.workflows.files import Outcome, PlannedFile
from nip_audio.workflows.purify_files import FilePurifier

__all__ = [
    "PURIFIED",
    "PurifiedRun",
    "shipped_purifier",
    "purify_flagged",
]

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
    already in ``out`` are skipped.

    Args:
        results: Results of the screening.
        source: Source of the files that were screened.
        purifier: Model and purifier to apply.
        out: Folder for the results and sidecars; each file keeps the path or id of its record.
        progress: Function called after each file.

    Raises:
        InputError: If an id of the manifest is not a valid path below ``out``.
        OutputError: If an output cannot be written.
    """
    reader, endings = purifier.reader, MODALITIES[purifier.reader.tag].purified
    done: list[Outcome] = []
    failures: list[FileError] = []
    earlier = 0
    for record in results.files():
        if record.verdict not in PURIFIED:
            continue
        written = out / _below(record.id, endings.file)
        if endings.sidecar(written).exists():
            earlier += 1
        else:
            file = source.find(record.id)
            try:
                item = reader.read(file)
                done.append(purifier.purify_read(PlannedFile(file.path, written), item, force=True))
            except FileError as err:
                failures.append(err)
        progress()
    return PurifiedRun(done, earlier, failures)


def _below(recording_id: str, ending: str) -> Path:
    """Return an id as a relative path; an id from a manifest must not lead out of the folder."""
    path = PurePosixPath(recording_id)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in recording_id:
        raise InputError(
            f"id {recording_id!r} is not a valid file name, expected one like speaker/take-1; "
            "change it in the manifest"
        )
    # keep the original suffix in the name: take.flac and take.ogg are two files
    return Path(path if path.suffix == ending else f"{path}{ending}")
