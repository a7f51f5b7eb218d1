"""Make the examiner that draws flagged files, from the model and settings of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.errors import CalibrationError, StateError
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purifiers.base import Purifier
from nip_audio.reporting.examine import Examiner
from nip_audio.reporting.picture_examine import ImageExaminer
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.judge import Judge
from nip_audio.screening.kinds import adapter_of_json
from nip_audio.screening.pipeline import Screener
from nip_audio.workflows.flagged import shipped_purifier

__all__ = ["examiner_of_run", "examiner_of_screening"]


def examiner_of_screening(screener: Screener) -> Examiner | ImageExaminer:
    """Make an examiner from the screener that has just made a run."""
    pretrained, judge, seed = screener.pretrained, screener.judge, screener.seed
    purifier = _purifier_of(pretrained)
    if isinstance(screener.adapter, WaveformAdapter):
        return Examiner(pretrained, screener.adapter.settings, seed, judge, purifier)
    return ImageExaminer(pretrained, screener.adapter, seed, judge, purifier)


def examiner_of_run(
    summary: Mapping[str, Any],
    pretrained: PretrainedModel,
    *,
    calibration: Path | None = None,
    seconds: float | None = None,
) -> Examiner | ImageExaminer:
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
            f"({summary['model']}), with which the run was made; pass --model with that one, or "
            "--details 0 to draw no files"
        )
    judge, purifier = _judge_of(summary, pretrained, calibration), _purifier_of(pretrained)
    adapter, seed = adapter_of_json(summary["read"]), summary["seed"]
    if not isinstance(adapter, WaveformAdapter):
        return ImageExaminer(pretrained, adapter, seed, judge, purifier)
    long = Examiner.seconds if seconds is None else seconds
    return Examiner(pretrained, adapter.settings, seed, judge, purifier, long)


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
            f"{summary['calibration'][:12]}…, with which the run was judged; pass --calibration "
            "with that one, or leave it out"
        )
    return None


def _purifier_of(pretrained: PretrainedModel) -> Purifier | None:
    return None if pretrained.card.purifier_path is None else shipped_purifier(pretrained)
