"""Purify files and folders; each result is a file with a JSON sidecar.

The originals are never modified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nip_audio.audio.manifest import walk_files
from nip_audio.core.modality import FileContent, Modality, Reader
from nip_audio.core.state import make_folder, require_new
from nip_audio.errors import FileError, InputError
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purifiers.base import Purifier
from nip_audio.screening.judge import Judge
from nip_audio.screening.records import ScreenRecord
from nip_audio.workflows.files import Outcome, PlannedFile, Purified, Workflow
from nip_audio.workflows.modalities import workflow_of
from nip_audio.workflows.outputs import refuse_clashes, short_name, write_sidecar

__all__ = ["FilePurifier", "plan_files"]


@dataclass(frozen=True)
class FilePurifier:
    """Model, purifier and settings with which files are purified.

    Attributes:
        pretrained: Model to defend.
        purifier: Purifier that is applied.
        reader: Reader of the files.
        seed: Seed of the purifier and the detector, combined with the content of each file.
        judge: Detector that judges files before and after; None skips the verdict.
        only_flagged: Whether only files that are not found clean are purified (gated
            purification), those that could not be judged included; the others are
            written as they were read, without any change of a sample or pixel.

    Raises:
        InputError: If ``only_flagged`` is set without a detector.
    """

    pretrained: PretrainedModel
    purifier: Purifier
    reader: Reader
    seed: int = 0
    judge: Judge | None = None
    only_flagged: bool = False

    def __post_init__(self) -> None:
        """Validate the settings."""
        if self.only_flagged and self.judge is None:
            raise InputError(
                "only flagged files are to be purified, but there is no detector to flag them; "
                "pass a calibration (nip-audio calibrate makes one), or purify all files"
            )

    @cached_property
    def _workflow(self) -> Workflow:
        return workflow_of(self.pretrained, self.reader, seed=self.seed, judge=self.judge)

    def purify(self, planned: PlannedFile, *, force: bool = False) -> Any:
        """Read and purify one file.

        Returns:
            ``Outcome`` of the modality: ``PurifiedFile`` or ``ChangedImage``.

        Raises:
            FileError: If the file cannot be used; nothing is written then.
            OutputError: If an output exists and ``force`` is false, or cannot be written.
        """
        return self.purify_read(planned, self.reader.load(planned.source), force=force)

    def purify_read(
        self,
        planned: PlannedFile,
        item: FileContent,
        *,
        screened: ScreenRecord | None = None,
        force: bool = False,
    ) -> Outcome:
        """Purify content that was read; the written file is read back and described.

        Args:
            planned: Paths of the file and of its outputs.
            item: Content of the file.
            screened: What a screening found in the file. The sidecar keeps it, since the copy
                itself no longer shows it.
            force: Whether an existing file is overwritten.

        Raises:
            OutputError: If an output exists and ``force`` is false, or cannot be written.
        """
        workflow = self._workflow
        before = workflow.assess(item)
        if self.only_flagged and before.verdict == "clean":
            made = Purified(item.raw)
        else:
            made = workflow.make(self.purifier, item)
        make_folder(planned.written.parent)
        for output in planned.outputs:
            require_new(output, force=force)
        self.reader.save(made.raw, planned.written, force=force)
        done = workflow.purified(self.purifier.settings(), planned, item, before, made)
        found = {} if screened is None else {"screening": screened.to_json()}
        write_sidecar(planned.sidecar, done.to_json() | found, force=force)
        if planned.plot:
            workflow.plot(done, force=force)
        return done

    def purify_all(
        self,
        planned: Iterable[PlannedFile],
        *,
        force: bool = False,
        progress: Callable[[PlannedFile], None] = lambda planned: None,
    ) -> tuple[list[Outcome], list[FileError]]:
        """Purify files one after the other; return the outcomes and the errors of the others.

        Args:
            planned: Files to purify, as returned by ``plan_files``.
            force: Whether an existing file is overwritten.
            progress: Function called after each file.

        Raises:
            OutputError: If an output exists and ``force`` is false, or cannot be written.
        """
        done, failures = [], []
        for file in planned:
            try:
                done.append(self.purify(file, force=force))
            except FileError as err:
                failures.append(err)
            progress(file)
        return done, failures


def plan_files(
    inputs: Sequence[Path],
    out: Path,
    modality: Modality,
    *,
    plot: bool = False,
    force: bool = False,
) -> list[PlannedFile]:
    """Plan which file is written where, and refuse conflicts before anything is written.

    A single file is written to ``out`` itself; files of a folder keep their sub-folders below it.
    If ``out`` lies inside an input folder, its files are skipped as results of an earlier run.

    Args:
        inputs: Files and folders.
        out: Folder for the outputs.
        modality: Modality of the files.
        plot: Whether a plot is planned for each file, too.
        force: Whether existing files may be overwritten, except inputs.

    Raises:
        InputError: If there is no file, or two files have the same output.
        OutputError: If an output exists and ``force`` is false, or is one of the inputs.
    """
    sources = _sources(inputs, out, modality)
    planned = [PlannedFile(source, out / relative, plot) for source, relative in sources]
    if not planned:
        given = ", ".join(map(str, inputs)) or "no path"
        raise InputError(f"{modality.expected.format(given)}; check the path")
    written = [(file.source, file.outputs) for file in planned]
    refuse_clashes(written, what=modality.plural, force=force)
    return planned


def _sources(inputs: Sequence[Path], out: Path, modality: Modality) -> Iterator[tuple[Path, Path]]:
    """Yield files and the paths of their outputs relative to ``out``."""
    for path in inputs:
        if not path.is_dir():
            yield path, _renamed(Path(path.name), modality)
            continue
        earlier = out.resolve() if path.resolve() in out.resolve().parents else None
        # links are followed, since the user named this folder
        for file in walk_files(path, modality.suffixes, follow_links=True):
            source = Path(file.path)
            if earlier is None or earlier not in source.resolve().parents:
                yield source, _renamed(Path(file.id), modality)


def _renamed(name: Path, modality: Modality) -> Path:
    """Replace a known suffix by the written one; another is part of the name, as in ``take.1``."""
    stem = name.stem if name.suffix.lower() in modality.suffixes else name.name
    return name.with_name(short_name(stem, modality.purified.file))
