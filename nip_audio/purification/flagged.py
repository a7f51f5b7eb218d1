"""Purified copies of what a screening flagged; the originals are not touched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nip_audio.audio.manifest import Recording
from nip_audio.errors import FileError, InputError
from nip_audio.image.adapter import ImageAdapter
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purification.files import FilePurifier, PlannedFile, PurifiedFile
from nip_audio.purification.pictures import ChangedPicture, purify_picture
from nip_audio.purifiers.base import Purifier
from nip_audio.purifiers.registry import make_purifier
from nip_audio.screening.records import Verdict
from nip_audio.screening.results import Results
from nip_audio.screening.sources import Source

__all__ = [
    "PURIFIED",
    "PurifiedRun",
    "own_purifier",
    "purify_flagged",
    "purify_flagged_pictures",
]

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

    done: Sequence[PurifiedFile | ChangedPicture] = ()
    earlier: int = 0
    failures: Sequence[FileError] = ()


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

    def purify(recording: Recording, written: Path) -> PurifiedFile:
        audio = recording.read(purifier.adapter.settings)
        return purifier.purify_read(PlannedFile(recording.path, written), audio, force=True)

    return _each_flagged(results, source, out, ".wav", purify, progress)


def purify_flagged_pictures(
    results: Results,
    source: Source,
    pretrained: PretrainedModel,
    purifier: Purifier,
    out: Path,
    *,
    seed: int = 0,
    progress: Callable[[], None] = lambda: None,
) -> PurifiedRun:
    """Write a purified copy of each picture that a screening called adversarial.

    Started again it goes on: what lies in ``out`` is not made anew.

    Args:
        results: Of the screening.
        source: What was screened.
        pretrained: The model.
        purifier: Its defence.
        out: Folder for PNGs and sidecars, each below the path that its record has.
        seed: With a picture's content, seeds a random purifier.
        progress: Called after each picture.

    Raises:
        OutputError: If something cannot be written.
    """
    adapter = ImageAdapter(*pretrained.card.image_shape)

    def purify(file: Recording, written: Path) -> ChangedPicture:
        adapter.read(file)  # refuses what has become a link to elsewhere
        written.parent.mkdir(parents=True, exist_ok=True)
        return purify_picture(pretrained, Path(file.path), written, purifier, seed=seed, force=True)

    return _each_flagged(results, source, out, ".png", purify, progress)


def _each_flagged(
    results: Results,
    source: Source,
    out: Path,
    ending: str,
    purify: Callable[[Recording, Path], PurifiedFile | ChangedPicture],
    progress: Callable[[], None],
) -> PurifiedRun:
    """Purify what is flagged and has no sidecar yet: it is written last."""
    done: list[PurifiedFile | ChangedPicture] = []
    failures: list[FileError] = []
    earlier = 0
    for record in results.files():
        if record.verdict not in PURIFIED:
            continue
        written = out / _below(record.id, ending)
        if written.with_suffix(".json").exists():
            earlier += 1
        else:
            try:
                done.append(purify(source.find(record.id), written))
            except FileError as err:
                failures.append(err)
        progress()
    return PurifiedRun(done, earlier, failures)


def _below(recording_id: str, ending: str) -> Path:
    """Return an id as a relative path; a manifest's must not lead elsewhere."""
    path = PurePosixPath(recording_id)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in recording_id:
        raise InputError(
            f"id {recording_id!r} is no name for a file; expected one like speaker/take-1; change "
            "it in the manifest"
        )
    # the ending stays in the name: take.flac and take.ogg are two files
    return Path(path if path.suffix == ending else f"{path}{ending}")
