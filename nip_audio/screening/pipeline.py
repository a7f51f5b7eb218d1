"""Screen a folder: sorted walk, one record a file, flushed; interrupted runs continue."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import count, groupby
from pathlib import Path
from typing import Any

from nip_audio import __version__
from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.io import Audio, read_audio
from nip_audio.audio.manifest import Recording, walk_audio
from nip_audio.core.state import whole_lines, write_atomic
from nip_audio.errors import AudioError, InputError, OutputError, ResumeError
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.judge import Judge
from nip_audio.screening.measure import Measurement, measure
from nip_audio.screening.records import ScreenRecord, error_record
from nip_audio.screening.summary import ScreenSummary, summarize

__all__ = ["Screener", "ScreenResult"]

RUN_NAME, RESULTS_NAME, SUMMARY_NAME = "run.json", "results.jsonl", "summary.json"

Progress = Callable[[ScreenRecord], None]


@dataclass(frozen=True)
class ScreenResult:
    """All records of a run and what they amount to."""

    records: list[ScreenRecord]
    summary: ScreenSummary


@dataclass(frozen=True)
class Screener:
    """Model, calibration and settings that a screening depends on.

    Attributes:
        pretrained: Model.
        judge: Calibration and false-positive rate.
        adapter: How files are read.
        seed: Of the noise. Each file's noise comes from the seed and the file's content.
    """

    pretrained: PretrainedModel
    judge: Judge
    adapter: WaveformAdapter
    seed: int = 0

    def identity(self) -> dict[str, Any]:
        """Return everything that a record depends on besides the file."""
        return {
            "nip_audio": __version__,
            "model": self.pretrained.card.name,
            "model_id": self.pretrained.model_id,
            "calibration": self.judge.calibration.fingerprint,
            "false_positive_rate": self.judge.false_positive_rate,
            "seed": self.seed,
            "read": asdict(self.adapter.settings),
        }

    def judge_files(self, recordings: Iterable[Recording]) -> Iterator[ScreenRecord]:
        """Judge files one by one, without comparing them to each other."""
        for recording in recordings:
            yield self._measure(recording)[0]

    def judge_group(self, recordings: Iterable[Recording]) -> list[ScreenRecord]:
        """Judge the files of one speaker, each by itself and beside the others."""
        records: dict[str, ScreenRecord] = {}
        measured: dict[str, Measurement] = {}
        for recording in recordings:
            record, measurement = self._measure(recording)
            records[record.id] = record
            if measurement is not None:
                measured[record.id] = measurement
        readable = [records[name] for name in measured]
        for record in self.judge.judge_folder(readable, list(measured.values())):
            records[record.id] = record
        return list(records.values())

    def screen(
        self, folder: Path, out: Path, *, progress: Progress = lambda record: None
    ) -> ScreenResult:
        """Screen a folder into ``out``: results.jsonl, summary.json and run.json.

        A speaker's files are judged together and their records written one by one, each flushed.
        Started again after an interruption at any point, it writes what is missing; the result is
        that of an undisturbed run.

        Args:
            folder: One sub-folder a speaker, or flat.
            out: Folder for the results; created when missing.
            progress: Called for every record, those of an earlier run included.

        Raises:
            ResumeError: If ``out`` holds a run with another model, calibration, rate or seed.
            OutputError: If ``out`` cannot be written.
            InputError: If there is no audio file: an empty screening must not look like a clean
                one.
        """
        if next(walk_audio(folder), None) is None:
            raise InputError(
                f"no audio file below {folder}, expected wav, flac, ogg or mp3; check the path"
            )
        self._claim(folder, out)
        done = {record.id: record for record in _read_results(out / RESULTS_NAME)}
        for record in done.values():
            progress(record)
        records: list[ScreenRecord] = []
        with (out / RESULTS_NAME).open("a", encoding="ascii") as results:
            for group in _groups(walk_audio(folder)):
                missing = [r for r in group if r.id not in done]
                # the whole group is measured again: consistency needs all of it
                judged = self.judge_group(group) if missing else [done[r.id] for r in group]
                for record in judged:
                    if record.id not in done:
                        results.write(record.to_line() + "\n")
                        results.flush()
                        progress(record)
                    records.append(done.get(record.id, record))
        summary = summarize(records)
        text = json.dumps(self.identity() | summary.to_json(), indent=2, allow_nan=False)
        write_atomic(out / SUMMARY_NAME, (text + "\n").encode(), force=True)
        return ScreenResult(records, summary)

    def _measure(self, recording: Recording) -> tuple[ScreenRecord, Measurement | None]:
        try:
            audio: Audio = read_audio(recording.path, self.adapter.settings, span=recording.span)
        except AudioError as err:
            return error_record(recording, err), None
        config = self.judge.calibration.config
        measured = measure(self.pretrained, audio, config, seed=self.seed)
        return self.judge.judge(recording, audio, measured), measured

    def _claim(self, folder: Path, out: Path) -> None:
        """Make ``out`` this run's own, or find that it already is."""
        identity = {"folder": str(folder.resolve()), **self.identity()}
        path = out / RUN_NAME
        try:
            out.mkdir(parents=True, exist_ok=True)
            if path.exists():
                earlier = json.loads(path.read_text(encoding="utf-8"))
                changed = sorted(k for k in identity if earlier.get(k) != identity[k])
                if changed:
                    details = ", ".join(
                        f"{k} ({earlier.get(k)}, now {identity[k]})" for k in changed
                    )
                    raise ResumeError(
                        f"{out} holds a run with another {details}; use another --out, or the "
                        "settings of that run"
                    )
            elif any(out.iterdir()):
                raise OutputError(f"{out} is not empty and holds no run; use another --out")
            else:
                write_atomic(path, (json.dumps(identity, indent=2) + "\n").encode())
        except OSError as err:
            raise OutputError(
                f"{out} cannot be written ({err.strerror}); use another --out"
            ) from err
        except ValueError as err:
            raise ResumeError(f"{path} is damaged ({err}); use another --out") from err


def _groups(recordings: Iterable[Recording]) -> Iterator[list[Recording]]:
    """Cut the sorted walk into speakers; a file without a speaker is a group of its own."""
    alone = count()
    for _, group in groupby(recordings, key=lambda r: r.speaker or next(alone)):
        yield list(group)


def _read_results(path: Path) -> Iterator[ScreenRecord]:
    """Read an earlier run's records."""
    for line in whole_lines(path, mend=True):
        yield ScreenRecord.from_line(line.decode("ascii", errors="replace"))
