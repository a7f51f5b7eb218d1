"""Write purified copies of the files that a screening flagged; originals are never modified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nip_audio.audio.manifest import Recording
from nip_audio.errors import FileError, InputError
from nip_audio.image.adapter import ImageAdapter
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purifiers.base import Purifier
from nip_audio.purifiers.registry import make_purifier
from nip_audio.screening.records import Verdict
from nip_audio.screening.results import Results
from nip_audio.screening.sources import Source
from nip_audio.workflows.images import ChangedImage, purify_image
from nip_audio.workflows.purify_files import FilePurifier, PlannedFile, PurifiedFile

__all__ = [
    "PURIFIED",
    "PurifiedRun",
    "shipped_purifier",
    "purify_flagged",
    "purify_flagged_images",
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

    done: Sequence[PurifiedFile | ChangedImage] = ()
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
    """Write a purified copy of each recording that a screening judged adversarial.

    An interrupted run can be resumed: files that are already in ``out`` are skipped.

    Args:
        results: Results of the screening.
        source: Source of the files that were screened.
        purifier: Model and purifier to apply.
        out: Folder for wavs and sidecars; each file keeps the path or id of its record.
        progress: Function called after each file.

    Raises:
        InputError: If an id of the manifest is not a valid path below ``out``.
        OutputError: If an output cannot be written.
    """

    def purify(recording: Recording, written: Path) -> PurifiedFile:
        audio = recording.read(purifier.adapter.settings)
        return purifier.purify_read(PlannedFile(recording.path, written), audio, force=True)

    return _each_flagged(results, source, out, ".wav", purify, progress)


def purify_flagged_images(
    results: Results,
    source: Source,
    pretrained: PretrainedModel,
    purifier: Purifier,
    out: Path,
    *,
    seed: int = 0,
    progress: Callable[[], None] = lambda: None,
) -> PurifiedRun:
    """Write a purified copy of each image that a screening judged adversarial.

    An interrupted run can be resumed: files that are already in ``out`` are skipped.

    Args:
        results: Results of the screening.
        source: Source of the files that were screened.
        pretrained: Model to defend.
        purifier: Purifier that is applied.
        out: Folder for PNGs and sidecars; each file keeps the path of its record.
        seed: Seed of a random purifier, combined with the content of the image.
        progress: Function called after each image.

    Raises:
        OutputError: If an output cannot be written.
    """
    adapter = ImageAdapter(*pretrained.card.image_shape)

    def purify(file: Recording, written: Path) -> ChangedImage:
        adapter.read(file)  # refuses a file that has been replaced by a link out of the folder
        written.parent.mkdir(parents=True, exist_ok=True)
        return purify_image(pretrained, Path(file.path), written, purifier, seed=seed, force=True)

    return _each_flagged(results, source, out, ".png", purify, progress)


def _each_flagged(
    results: Results,
    source: Source,
    out: Path,
    ending: str,
    purify: Callable[[Recording, Path], PurifiedFile | ChangedImage],
    progress: Callable[[], None],
) -> PurifiedRun:
    """Purify flagged files without a sidecar, which is the last output to be written."""
    done: list[PurifiedFile | ChangedImage] = []
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
    """Return an id as a relative path; an id from a manifest must not lead out of the folder."""
    path = PurePosixPath(recording_id)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in recording_id:
        raise InputError(
            f"id {recording_id!r} is not a valid file name, expected one like speaker/take-1; "
            "change it in the manifest"
        )
    # keep the original suffix in the name: take.flac and take.ogg are two files
    return Path(path if path.suffix == ending else f"{path}{ending}")
