"""Screen a folder or a manifest: measure files that are new, then judge all of them together."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count, groupby
from pathlib import Path
from typing import Any

from nip_audio import __version__
from nip_audio.audio.manifest import Recording
from nip_audio.audio.speech import speech_finder
from nip_audio.core.files import LARGEST_JSON, read_regular
from nip_audio.core.modality import Reader
from nip_audio.core.seeds import secret_seed
from nip_audio.core.state import leftovers_of, make_folder, write_atomic
from nip_audio.core.strict_json import load_json
from nip_audio.errors import InputError, OutputError, ResumeError
from nip_audio.models.cards import card_sha256
from nip_audio.models.modalities import modality_of
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.comparison import Comparison, compare
from nip_audio.screening.engines.base import Engine, MeasurerRecipe
from nip_audio.screening.engines.crumb import CRUMB_NAME, Crumb
from nip_audio.screening.engines.local import LocalEngine, measure_alone
from nip_audio.screening.enrolment.gate import EnrolmentGate, GateTally
from nip_audio.screening.journal import JOURNAL_NAME, LOCK_NAME, Journal, locked
from nip_audio.screening.judge import Judge, add_duplicates, add_trigger_suspicion, judge_speaker
from nip_audio.screening.kind import Kind
from nip_audio.screening.measure import FileMeasurer
from nip_audio.screening.measured import MeasuredFile
from nip_audio.screening.modalities import kind_of
from nip_audio.screening.records import ScreenRecord
from nip_audio.screening.results import (
    RESULTS_NAME,
    SPEAKERS_NAME,
    SUMMARY_NAME,
    Results,
    publishing,
)
from nip_audio.screening.sources import Source
from nip_audio.screening.stamps import has_content, may_be_unchanged, same_file, stamp_of
from nip_audio.screening.summary import ScreenSummary, Tally

__all__ = ["SUMMARY_NAME", "ScreenResult", "Screener", "choose_seed"]

RUN_NAME = "run.json"

_OWN = frozenset(
    {
        *(RUN_NAME, SUMMARY_NAME, RESULTS_NAME, SPEAKERS_NAME),
        *(JOURNAL_NAME, CRUMB_NAME, LOCK_NAME),
    }
)

Progress = Callable[[str], None]
"""Callback with the id of each file that is done."""


@dataclass(frozen=True)
class ScreenResult:
    """Result of a run.

    Attributes:
        summary: Counts of the run.
        results: Reader of the records of files and speakers, one by one.
    """

    summary: ScreenSummary
    results: Results


@dataclass(frozen=True)
class Screener:
    """Screens files with one model, calibration and reader.

    Attributes:
        pretrained: Model that measures the files.
        judge: Calibration, and the rate at which it flags files.
        adapter: Reader of the files; it also determines their modality.
        seed: Seed of the noise generator; each file's noise depends on the seed and its content.
            Whoever knows it can compute the noise: ``choose_seed`` draws one in secret.
        engine: Engine that measures the files.
        backdoor: Whether to search for files with a backdoor trigger as well. This makes sense for
            a model that was, or may have been, trained on these very files.
        trust_mtime: Whether a file of the same size and modification time is taken for unchanged.
            Anyone who may replace a file can forge both. Otherwise a file that was moved or
            replaced is read again, and its content decides.
        gate: Enrolment gate; None has none, and measures no speech.
    """

    pretrained: PretrainedModel
    judge: Judge
    adapter: Reader
    seed: int = 0
    engine: Engine = field(default_factory=LocalEngine)
    backdoor: bool = False
    trust_mtime: bool = False
    gate: EnrolmentGate | None = None

    def __post_init__(self) -> None:
        """Fail now, not at the first file, if the gate cannot be used.

        Raises:
            InputError: If the files are no recordings.
            MissingDependencyError: If silero-vad is not installed.
        """
        if self.gate is None:
            return
        if not self.kind.has_speech:
            raise InputError(
                f"the enrolment gate got {self.kind.modality.plural}, expected recordings; leave "
                "it out"
            )
        speech_finder()

    @staticmethod
    def from_pretrained(
        pretrained: PretrainedModel,
        calibration: Calibration | Path | None = None,
        fpr: float | None = None,
        *,
        fdr: float | None = None,
    ) -> Screener:
        """Return a screener for a model.

        Args:
            pretrained: Model that measures the files.
            calibration: Calibration or its file; None takes the one that comes with the model.
            fpr: False-positive rate on clean files like the calibration's; None takes 0.01, or the
                lowest that the calibration allows.
            fdr: Flag so that about this share of the flagged files is clean, instead of ``fpr``.

        Raises:
            CalibrationError: If there is no calibration, or it does not allow the rate.
        """
        judge = Judge.at(Calibration.of(pretrained, calibration), fpr, fdr)
        reader = modality_of(pretrained.card).reader(pretrained.card)
        return Screener(pretrained, judge, reader)

    @property
    def kind(self) -> Kind:
        """Modality of the files."""
        return kind_of(self.adapter)

    @property
    def measurer(self) -> FileMeasurer:
        """Measurer of single files with the settings of this screening."""
        probe = self.judge.calibration.detector.probe
        speech = self.gate is not None
        return FileMeasurer(self.pretrained, probe, self.kind, self.seed, self.backdoor, speech)

    def measurement_settings(self) -> dict[str, Any]:
        """Return everything that a measurement depends on besides the file."""
        return {
            "nip_audio": __version__,
            "model": self.pretrained.card.name,
            "model_id": self.pretrained.model_id,
            **self.judge.calibration.detector.probe.to_json(),
            "seed": self.seed,
            "triggers": self.backdoor,
            "read": self.adapter.to_json(),
        }

    def judged_by(self) -> dict[str, str]:
        """Return the fingerprints of what judges, whichever folder it came from.

        A calibration for the same model may be lax; a card may name the model's classes wrongly.
        """
        calibration = self.judge.calibration
        card = self.pretrained.card
        found = {"card": card_sha256(card.data), "calibration": calibration.fingerprint}
        probe = calibration.detector.probe.to_json()
        return found | {key: probe[key] for key in ("purifier",) if key in probe}

    def verdict_settings(self) -> dict[str, Any]:
        """Return everything that a verdict depends on besides the files."""
        return self.measurement_settings() | {
            **self.judged_by(),
            "calibration_sources": self.judge.calibration.sources,
            "false_positive_rate": self.judge.false_positive_rate,
            "false_discovery_rate": self.judge.false_discovery_rate,
            "gate": None if self.gate is None else self.gate.to_json(),
        }

    def judge_files(self, recordings: Iterable[Recording]) -> Iterator[ScreenRecord]:
        """Judge files one by one, without comparing them with each other."""
        measurer = self.measurer
        for recording in recordings:
            yield self.judge_alone(measurer(recording))

    def judge_alone(self, file: MeasuredFile, *, q_value: float | None = None) -> ScreenRecord:
        """Judge a measured file by itself, with what the gate finds.

        Args:
            file: Measured file, or one that could not be read.
            q_value: q-value of the file among all files of its run; None if there is none.
        """
        record = self.judge.judge(file, q_value=q_value)
        if self.gate is None:
            return record
        return self.gate.judge_file(record, file, self.judge.calibration)

    def screen(
        self, source: Source, out: Path, *, progress: Progress = lambda recording: None
    ) -> ScreenResult:
        """Screen files and write results.jsonl, speakers.jsonl and summary.json to ``out``.

        The measurement of each file is written to measured.jsonl before the next file is measured,
        and run.json holds the settings that it depends on. A second call with the same ``out``
        measures only files that are new or changed, and judges all of them again, even at another
        rate. The results equal those of one uninterrupted run.

        Args:
            source: Folder or manifest to screen.
            out: Folder for the results; created if it does not exist.
            progress: Called for every file, including those that an earlier run measured.

        Raises:
            ResumeError: If ``out`` holds measurements of another model, seed or source.
            OutputError: If ``out`` cannot be written, or another run is writing there.
            InputError: If the source has no file, because an empty screening must not look clean.
        """
        if next(iter(source), None) is None:
            modality = self.kind.modality
            found = [modality.expected.format(source.name), *source.survey(out).notes(modality)]
            raise InputError(f"found {'. '.join(found)}; check the path, or `modality`")
        with self._opened(source, out) as journal:
            current = self._measure(source, journal, progress)
            return self._judge(source, journal, current, out)

    def watch(
        self,
        source: Source,
        out: Path,
        *,
        looks: Iterable[None],
        progress: Progress = lambda recording: None,
    ) -> Iterator[ScreenResult]:
        """Screen a folder to which files are being added.

        A file is measured once it has not changed between two looks at the folder, so that a file
        that is still being copied is left alone. No clock is compared for that.

        Args:
            source: Folder to watch; it may still be empty.
            out: Folder for the results; created if it does not exist.
            looks: Iterable with one item for each look at the folder; it waits between the looks
                and ends when watching shall end.
            progress: Called for every file that is measured.

        Yields:
            The results, whenever they were written again.

        Raises:
            ResumeError: If ``out`` holds measurements of another model, seed or source.
            OutputError: If ``out`` cannot be written, or another run is writing there.
        """
        with self._opened(source, out) as journal:
            seen: dict[str, str] = {}
            judged: dict[str, str] = {}
            for _ in looks:
                last, seen = seen, {r.id: stamp_of(r) for r in source}
                settled = {name for name, stamp in seen.items() if last.get(name) == stamp}
                current = self._measure(source, journal, progress, only=settled)
                known = {name: stamp for name, stamp in seen.items() if name in current}
                if known and known != judged:
                    yield self._judge(source, journal, current, out)
                judged = known

    @contextmanager
    def _opened(self, source: Source, out: Path) -> Iterator[Journal]:
        """Lock ``out`` for this run and open its journal, after checking that it belongs here."""
        make_folder(out)
        ours = _OWN | {path.name for path in leftovers_of(out, _OWN)}
        strange = sorted(entry.name for entry in out.iterdir() if entry.name not in ours)
        if strange and not (out / RUN_NAME).exists():
            raise OutputError(
                f"{out} is not empty and holds no earlier run (found {strange[0]!r}), expected an "
                "empty folder or that of a run; use another `out`"
            )
        with locked(out):
            for path in leftovers_of(out, _OWN):  # of a run that was killed
                path.unlink(missing_ok=True)
            self._claim(source, out / RUN_NAME)
            with Journal(out / JOURNAL_NAME) as journal:
                yield journal

    def _claim(self, source: Source, path: Path) -> None:
        identity = {"source": source.name, **self.measurement_settings()}
        content = (json.dumps(identity | self.judged_by(), indent=2) + "\n").encode()
        if not path.exists():
            write_atomic(path, content)
            return
        try:
            written = read_regular(path, most=LARGEST_JSON)
            earlier = load_json(written)
            changed = sorted(k for k in identity if earlier.get(k) != identity[k])
        except (AttributeError, OSError, ValueError) as err:
            raise ResumeError(f"{path} is damaged ({err}); use another `out`") from err
        if changed:
            details = ", ".join(_change(k, earlier.get(k), identity[k]) for k in changed)
            raise ResumeError(
                f"{path.parent} holds a run with another {details}, expected the same settings; "
                "use another `out`, or the settings of that run"
            )
        if written != content:  # another calibration judges the same measurements
            write_atomic(path, content, force=True)

    def _measure(
        self,
        source: Source,
        journal: Journal,
        progress: Progress,
        *,
        only: Container[str] | None = None,
    ) -> set[str]:
        """Measure the files that are new or were changed; ``only`` limits them to some ids.

        Returns:
            Ids of the files whose measurement is that of their present content.
        """
        current = set()

        def new() -> Iterator[Recording]:
            for recording in source:
                if self._is_known(journal, recording):
                    current.add(recording.id)
                    progress(recording.id)
                elif only is None or recording.id in only:
                    yield recording

        crumb = Crumb(journal.path.with_name(CRUMB_NAME))
        ended_at = crumb.left()
        alone = lambda r: r.id == ended_at or journal.crashed(r.id)  # noqa: E731
        try:
            for careful, files in groupby(new(), key=alone):
                for file in (
                    measure_alone(MeasurerRecipe.of(self.measurer), files)
                    if careful
                    else self.engine.measure(self.measurer, files, begun=crumb.drop)
                ):
                    journal.append(file)
                    current.add(file.id)
                    progress(file.id)
            journal.sync()
        finally:
            crumb.remove()  # whatever gets here was no crash
        return current

    def _is_known(self, journal: Journal, recording: Recording) -> bool:
        """Tell whether the journal has a measurement of a file's present content.

        Only a file that was moved, touched or replaced by one of the same size is read for that.
        """
        earlier, now = journal.stamp(recording.id), stamp_of(recording)
        if earlier is None or self._lacks_speech(journal, recording):
            return False
        if same_file(earlier, now, trust_mtime=self.trust_mtime):
            return True
        facts = journal.read(recording.id).facts
        if facts is None or not may_be_unchanged(earlier, now):
            return False
        if not has_content(recording, facts.sha256) or stamp_of(recording) != now:
            return False
        if earlier != now:
            journal.restamp(recording.id, now)
        return True

    def _lacks_speech(self, journal: Journal, recording: Recording) -> bool:
        """Tell whether a file was measured without what the gate asks for, or with another way."""
        if self.gate is None:
            return False
        file = journal.read(recording.id)
        if file.facts is None:
            return False
        return file.speech is None or file.speech.finder != speech_finder()

    def _judge(
        self, source: Source, journal: Journal, current: Container[str], out: Path
    ) -> ScreenResult:
        """Judge the files whose measurement is current, and publish all results again."""
        calibration, words = self.judge.calibration, self.kind.words
        files = (_known(journal, r) for r in source if r.id in current)
        comparison = compare(files, source, calibration, self.kind, self.gate)
        tally = Tally(self.judge.false_positive_rate, words)
        gated = None if self.gate is None else GateTally()
        with publishing(out) as publication:
            for group in _groups(r for r in source if r.id in current):
                measured = [_known(journal, r) for r in group]
                records = self._judge_group(measured, comparison)
                named = group[0].speaker is not None
                speaker = judge_speaker(records, words) if named else None
                if self.gate is not None and speaker is not None:
                    nearest = comparison.nearest.get(speaker.speaker)
                    speaker = self.gate.judge_speaker(
                        speaker, records, measured, nearest, calibration
                    )
                publication.write(records, speaker)
                tally.add(records, speaker)
                if gated is not None:
                    gated.add(records, speaker)
            survey = source.survey(out)
            summary = replace(
                tally.summary(backdoor=comparison.backdoor),
                passed_over=survey.to_json(),
                notes=(
                    *filter(None, [self.judge.note]),
                    *survey.notes(self.kind.modality),
                    *(() if gated is None else gated.notes),
                ),
                gated=None if gated is None else gated.to_json(),
            )
            results = publication.finish(self.verdict_settings() | summary.to_json())
        return ScreenResult(summary, results)

    def _judge_group(
        self, files: Sequence[MeasuredFile], comparison: Comparison
    ) -> list[ScreenRecord]:
        """Judge the files of one speaker, each by itself and in comparison with the others."""
        words = self.kind.words
        records = {f.id: self.judge_alone(f, q_value=comparison.q_values.get(f.id)) for f in files}
        readable = [file for file in files if file.measurement is not None]
        beside = self.judge.compare_files([records[file.id] for file in readable], readable)
        records |= {record.id: record for record in beside}
        for name in records.keys() & comparison.duplicates.keys():
            records[name] = add_duplicates(records[name], comparison.duplicates[name], words)
        for name in records.keys() & comparison.suspicions.keys():
            records[name] = add_trigger_suspicion(records[name], comparison.suspicions[name], words)
        return list(records.values())


def choose_seed(given: int | None, out: Path | None = None) -> int:
    """Return the seed given, or that of the run which is resumed, or else a secret new one.

    Args:
        given: Seed that the user wants; None leaves the choice.
        out: Folder that may hold a run; None if there is none.
    """
    if given is not None:
        return given
    try:
        path = None if out is None else out / RUN_NAME
        seed = path and load_json(read_regular(path, most=LARGEST_JSON))["seed"]
    except (KeyError, OSError, TypeError, ValueError):
        seed = None  # a new run, or one whose damage the screening reports
    return seed if type(seed) is int else secret_seed()


def _known(journal: Journal, recording: Recording) -> MeasuredFile:
    """Return a file's measurement, with the speaker that the source gives it now."""
    return replace(journal.read(recording.id), speaker=recording.speaker)


def _groups(recordings: Iterable[Recording]) -> Iterator[list[Recording]]:
    """Group sorted recordings by speaker; a file without a speaker is a group of its own."""
    alone = count()
    for _, group in groupby(recordings, key=lambda r: r.speaker or next(alone)):
        yield list(group)


_MOST_SAID = 40


def _change(key: str, earlier: object, now: object) -> str:
    """Name a changed setting, with its values unless they are too long to be read."""
    if max(len(str(earlier)), len(str(now))) > _MOST_SAID:
        return key
    return f"{key} ({earlier}, now {now})"
