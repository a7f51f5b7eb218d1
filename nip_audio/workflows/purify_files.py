"""Purify audio files and folders; each result is a wav with a JSON sidecar.

The originals are never modified.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.io import AUDIO_SUFFIXES, Audio, read_audio, write_audio
from nip_audio.audio.manifest import walk_audio
from nip_audio.core.state import file_sha256, make_folder, require_new, write_atomic
from nip_audio.errors import AudioError, InputError
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purifiers.base import Purifier
from nip_audio.screening.judge import Judge
from nip_audio.screening.records import FLAGGED
from nip_audio.workflows.attack import read_back
from nip_audio.workflows.outputs import refuse_clashes
from nip_audio.workflows.purify import (
    PurifiedAudio,
    PurifiedSamples,
    assess,
    compare,
    purify_samples,
)

__all__ = ["FilePurifier", "PlannedFile", "PurifiedFile", "plan_files"]


@dataclass(frozen=True)
class PlannedFile:
    """A recording to purify, and the paths of its outputs.

    Attributes:
        source: Path of the recording, as in ``Recording``.
        written: Path of the wav to write.
        plot: Whether a plot is drawn, too.
    """

    source: Path | str
    written: Path
    plot: bool = False

    @property
    def sidecar(self) -> Path:
        """Path of the JSON sidecar beside the wav."""
        return self.written.with_suffix(".json")

    @property
    def plot_path(self) -> Path:
        """Path of the plot beside the wav, a PNG."""
        return self.written.with_suffix(".png")

    @property
    def outputs(self) -> tuple[Path, ...]:
        """Paths of all files to write."""
        return (self.written, self.sidecar, *([self.plot_path] if self.plot else []))


@dataclass(frozen=True)
class PurifiedFile:
    """A purified file, as described in its sidecar.

    Attributes:
        planned: Paths of the recording and of its outputs.
        original: Original recording, as it was read.
        written_sha256: SHA-256 of the bytes of the written wav.
        model: Name of the model.
        result: Changes of the recording, and predictions before and after.
    """

    planned: PlannedFile
    original: Audio
    written_sha256: str
    model: str
    result: PurifiedAudio

    def to_json(self) -> dict[str, Any]:
        """Return the content of the sidecar as plain JSON values."""
        facts = {
            "source": str(self.planned.source),
            "source_sha256": self.original.sha256,
            "written": str(self.planned.written),
            "written_sha256": self.written_sha256,
            "duration_s": round(self.original.duration_s, 6),
            "changes": list(self.original.changes),
            "model": self.model,
        }
        return {**facts, **self.result.to_json()}


@dataclass(frozen=True)
class FilePurifier:
    """Model, purifier and settings with which files are purified.

    Attributes:
        pretrained: Model to defend.
        purifier: Purifier that is applied.
        adapter: Adapter that reads the files.
        seed: Seed of the purifier and the detector, as in ``purify_audio``.
        judge: Detector that judges files before and after; None skips the verdict.
        only_flagged: Whether only flagged files are purified (gated purification); the others are
            written as they were read, without any change of a sample.

    Raises:
        InputError: If ``only_flagged`` is set without a detector.
    """

    pretrained: PretrainedModel
    purifier: Purifier
    adapter: WaveformAdapter
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

    def purify(self, planned: PlannedFile, *, force: bool = False) -> PurifiedFile:
        """Read and purify one file.

        Raises:
            AudioError: If the recording cannot be used; nothing is written then.
            OutputError: If an output exists and ``force`` is false, or cannot be written.
        """
        return self.purify_read(
            planned, read_audio(planned.source, self.adapter.settings), force=force
        )

    def purify_read(
        self, planned: PlannedFile, audio: Audio, *, force: bool = False
    ) -> PurifiedFile:
        """Purify a recording that was read; the written 16-bit file is read back and assessed.

        Raises:
            OutputError: If an output exists and ``force`` is false, or cannot be written.
        """
        before = assess(self.pretrained, audio, seed=self.seed, judge=self.judge)
        if self.only_flagged and before.verdict not in FLAGGED:
            made = PurifiedSamples(audio.samples)
        else:
            made = purify_samples(self.pretrained, self.purifier, audio, seed=self.seed)
        make_folder(planned.written.parent)
        for output in planned.outputs:
            require_new(output, force=force)
        write_audio(planned.written, made.samples, audio.sample_rate_hz, force=force)
        written = read_back(planned.written, self.adapter.settings)
        result = compare(
            *(self.pretrained, self.purifier, audio, before, made, written),
            seed=self.seed,
            judge=self.judge,
        )
        done = PurifiedFile(
            planned, audio, file_sha256(planned.written), self.pretrained.card.name, result
        )
        text = json.dumps(done.to_json(), indent=2, allow_nan=False) + "\n"
        write_atomic(planned.sidecar, text.encode(), force=force)
        if planned.plot:
            from nip_audio.workflows.plot import plot_purification  # needs matplotlib

            plot_purification(self.pretrained, result, planned.plot_path, force=force)
        return done

    def purify_all(
        self,
        planned: Iterable[PlannedFile],
        *,
        force: bool = False,
        progress: Callable[[PlannedFile], None] = lambda planned: None,
    ) -> tuple[list[PurifiedFile], list[AudioError]]:
        """Purify files one after the other; return the purified files and the errors of the others.

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
            except AudioError as err:
                failures.append(err)
            progress(file)
        return done, failures


def plan_files(
    inputs: Sequence[Path], out: Path, *, plot: bool = False, force: bool = False
) -> list[PlannedFile]:
    """Plan which file is written where, and refuse conflicts before anything is written.

    A single file is written to ``out`` itself; files of a folder keep their sub-folders below it.
    If ``out`` lies inside an input folder, its files are skipped as results of an earlier run.

    Args:
        inputs: Audio files and folders.
        out: Folder for the outputs.
        plot: Whether a plot is planned for each file, too.
        force: Whether existing files may be overwritten, except inputs.

    Raises:
        InputError: If there is no recording, or two recordings have the same output.
        OutputError: If an output exists and ``force`` is false, or is one of the inputs.
    """
    sources = _sources(inputs, out)
    planned = [PlannedFile(source, out / relative, plot) for source, relative in sources]
    if not planned:
        raise InputError(
            f"no audio file in {', '.join(map(str, inputs)) or 'no path'}, expected wav, flac, ogg "
            "or mp3; check the path"
        )
    written = [(file.source, file.outputs) for file in planned]
    refuse_clashes(written, what="recordings", force=force)
    return planned


def _sources(inputs: Sequence[Path], out: Path) -> Iterable[tuple[Path, Path]]:
    """Yield recordings and the paths of their outputs relative to ``out``."""
    for path in inputs:
        if not path.is_dir():
            yield path, _as_wav(Path(path.name))
            continue
        earlier = out.resolve() if path.resolve() in out.resolve().parents else None
        # links are followed, since the user named this folder
        for recording in walk_audio(path, follow_links=True):
            source = Path(recording.path)
            if earlier is None or earlier not in source.resolve().parents:
                yield source, _as_wav(Path(recording.id))


def _as_wav(name: Path) -> Path:
    """Replace an audio suffix by ``.wav``; another suffix is part of the name, as in ``take.1``."""
    stem = name.stem if name.suffix.lower() in AUDIO_SUFFIXES else name.name
    return name.with_name(f"{stem}.wav")
