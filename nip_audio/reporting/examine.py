"""Examine one flagged file again, before and after purification.

The result shows what the detector's verdict and the model's decision rest on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nip_audio.audio.manifest import Recording
from nip_audio.core.modality import Reader
from nip_audio.errors import CalibrationError, InputError, StateError
from nip_audio.models.modalities import reader_of_json
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purifiers.base import Purifier
from nip_audio.reporting.evidence import Evidence, require_unchanged
from nip_audio.reporting.images import examine_image
from nip_audio.reporting.recordings import examine_recording
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.judge import Judge
from nip_audio.screening.modalities import kind_of
from nip_audio.screening.pipeline import Screener
from nip_audio.screening.records import ScreenRecord
from nip_audio.workflows.flagged import PURIFIED, shipped_purifier
from nip_audio.workflows.modalities import workflow_of

__all__ = ["Examined", "Examiner", "examiner_of_run", "examiner_of_screening"]

_EXAMINE: Mapping[str, Callable[..., Examined]] = {
    "audio": examine_recording,
    "image": examine_image,
}


class Examined(Protocol):
    """Everything that is drawn of one file."""

    def html(self) -> str:
        """Return it as HTML."""
        ...


@dataclass(frozen=True)
class Examiner:
    """Examines files again, with the model and settings of a run.

    Attributes:
        pretrained: Model of the run.
        reader: Reader of the run's files.
        seed: Seed of the run's noise generator.
        judge: Judge of the run; None if its calibration is not available.
        purifier: Purifier of the model; None if it has none.
        seconds: Length of the excerpt of a recording that is drawn and played, from the beginning.
    """

    pretrained: PretrainedModel
    reader: Reader
    seed: int = 0
    judge: Judge | None = None
    purifier: Purifier | None = None
    seconds: float = 10.0

    def __post_init__(self) -> None:
        """Check the length of the excerpt.

        Raises:
            InputError: If it is not above 0.
        """
        if not self.seconds > 0:
            raise InputError(
                f"seconds is {self.seconds}, expected more than 0; leave it out for 10 seconds"
            )

    def examine(self, record: ScreenRecord, file: Recording) -> Any:
        """Read one file again and examine it.

        Args:
            record: Record of the file in the run.
            file: File to read.

        Returns:
            ``Examined`` of the file's modality.

        Raises:
            FileError: If the file cannot be read any more, or was changed since the screening.
        """
        item = self.reader.read(file)
        error = kind_of(self.reader).modality.error
        require_unchanged(record, item.sha256, file.path, error)
        workflow = workflow_of(self.pretrained, self.reader, seed=self.seed, judge=self.judge)
        purifier = self.purifier if record.verdict in PURIFIED else None
        examine = _EXAMINE[self.reader.tag]
        return examine(workflow, item, self._evidence(item), purifier, self.seconds)

    def _evidence(self, item: Any) -> Evidence:
        if self.judge is None:
            return Evidence()
        detector = self.judge.calibration.detector
        kind = kind_of(self.reader)
        measured = kind.measure(self.pretrained, item, detector.probe, seed=self.seed)
        return Evidence.of(detector, measured)


def examiner_of_screening(screener: Screener) -> Examiner:
    """Make an examiner from the screener that has just made a run."""
    pretrained = screener.pretrained
    purifier = _purifier_of(pretrained)
    return Examiner(pretrained, screener.adapter, screener.seed, screener.judge, purifier)


def examiner_of_run(
    summary: Mapping[str, Any],
    pretrained: PretrainedModel,
    *,
    calibration: Path | None = None,
    seconds: float | None = None,
) -> Examiner:
    """Make an examiner from the summary of a run.

    Args:
        summary: Summary of the run.
        pretrained: Model of the run.
        calibration: Path of the run's calibration. None takes the model's own calibration if the
            run used it, and otherwise leaves out the detector's evidence.
        seconds: Length of the excerpt that is drawn and played, from the beginning; None takes ten
            seconds.

    Raises:
        StateError: If the model is not that of the run, or the given calibration cannot be read.
        CalibrationError: If the given calibration is not that of the run.
        InputError: If ``seconds`` is not above 0.
    """
    if pretrained.model_id != summary["model_id"]:
        raise StateError(
            f"got model {pretrained.model_id[:12]}…, expected {summary['model_id'][:12]}… "
            f"({summary['model']}), with which the run was made; pass `model` with that one, or "
            "`details=0` to draw no files"
        )
    judge, purifier = _judge_of(summary, pretrained, calibration), _purifier_of(pretrained)
    reader, seed = reader_of_json(summary["read"]), summary["seed"]
    long = Examiner.seconds if seconds is None else seconds
    return Examiner(pretrained, reader, seed, judge, purifier, long)


def _judge_of(
    summary: Mapping[str, Any], pretrained: PretrainedModel, given: Path | None
) -> Judge | None:
    path = given or pretrained.card.calibration_path
    if path is None:
        return None
    try:
        calibration = Calibration.load(path, model_id=pretrained.model_id)
    except StateError:
        if given is not None:
            raise
        return None  # the model's own was made by an earlier version, so it is not this run's
    if calibration.fingerprint == summary["calibration"]:
        return Judge(calibration, summary["false_positive_rate"])
    if given is not None:
        raise CalibrationError(
            f"{given} is calibration {calibration.fingerprint[:12]}…, expected "
            f"{summary['calibration'][:12]}…, with which the run was judged; pass `calibration` "
            "with that one, or leave it out"
        )
    return None


def _purifier_of(pretrained: PretrainedModel) -> Purifier | None:
    return None if pretrained.card.purifier_path is None else shipped_purifier(pretrained)
