"""Purified copies of what a screening flagged; the originals are not touched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from nip_audio.errors import AudioError, InputError
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purification.files import FilePurifier, PlannedFile, PurifiedFile
from nip_audio.purifiers.base import Purifier
from nip_audio.purifiers.registry import make_purifier
from nip_audio.screening.records import Verdict
from nip_audio.screening.results import Results
from nip_audio.screening.sources import Source

__all__ = ["PURIFIED", "PurifiedRun", "own_purifier", "purify_flagged"]

PURIFIED: tuple[Verdict, ...] = ("adversarial",)
"""What purification is for: it mends no other flaw."""


@dataclass(frozen=True)
class PurifiedRun:
    """What became of the flagged files.

    Attributes:
        done: Purified now.
        earlier: How many were purified by an earlier start of the same command.
        failures: Files that could not be read any more.
    """

    done: list[PurifiedFile] = field(default_factory=list)
    earlier: int = 0
    failures: list[AudioError] = field(default_factory=list)


def own_purifier(pretrained: PretrainedModel) -> Purifier:
    """Return the guided purifier that comes with a model.

    Raises:
        InputError: If none does.
    """
    path = pretrained.card.purifier_path
    if path is None:
        raise InputError(
            f"model {pretrained.card.name} comes without a purifier; make one with nip-audio "
            "fit-purifier, and purify with nip-audio purify --purifier FILE"
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
    """Write a purified copy of each file that a screening called adversarial.

    Started again it goes on: what lies in ``out`` is not made anew.

    Args:
        results: Of the screening.
        source: What was screened.
        purifier: Model and purifier.
        out: Folder for wavs and sidecars, each below the path or name that its record has.
        progress: Called after each file.

    Raises:
        InputError: If a manifest's id is no name for a file below ``out``.
        OutputError: If something cannot be written.
    """
    run, earlier = PurifiedRun(), 0
    for record in results.files():
        if record.verdict not in PURIFIED:
            continue
        recording = source.find(record.id)
        planned = PlannedFile(recording.path, out / _below(record.id))
        if planned.sidecar.exists():
            earlier += 1
        else:
            try:
                audio = recording.read(purifier.adapter.settings)
                run.done.append(purifier.purify_read(planned, audio, force=True))
            except AudioError as err:
                run.failures.append(err)
        progress()
    return PurifiedRun(run.done, earlier, run.failures)


def _below(recording_id: str) -> Path:
    """Return an id as a relative path; a manifest's must not lead elsewhere."""
    path = PurePosixPath(recording_id)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in recording_id:
        raise InputError(
            f"id {recording_id!r} is no name for a file; expected one like speaker/take-1; change "
            "it in the manifest"
        )
    # the ending stays in the name: take.flac and take.ogg are two files
    return Path(path if path.suffix == ".wav" else f"{path}.wav")
