"""What flagged files are drawn with: the model, calibration and settings of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.errors import CalibrationError, StateError
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purification.flagged import shipped_purifier
from nip_audio.purifiers.base import Purifier
from nip_audio.reporting.examine import Examiner
from nip_audio.reporting.picture_examine import PictureExaminer
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.judge import Judge
from nip_audio.screening.kinds import adapter_of_json
from nip_audio.screening.pipeline import Screener

__all__ = ["examiner_of_run", "examiner_of_screening"]


def examiner_of_screening(screener: Screener) -> Examiner | PictureExaminer:
    """Make an examiner with what a screening was just made with."""
    pretrained, judge, seed = screener.pretrained, screener.judge, screener.seed
    purifier = _purifier_of(pretrained)
    if isinstance(screener.adapter, WaveformAdapter):
        return Examiner(pretrained, screener.adapter.settings, seed, judge, purifier)
    return PictureExaminer(pretrained, screener.adapter, seed, judge, purifier)


def examiner_of_run(
    summary: Mapping[str, Any],
    pretrained: PretrainedModel,
    *,
    calibration: Path | None = None,
    seconds: float | None = None,
) -> Examiner | PictureExaminer:
    """Make an examiner with the settings of a run.

    Args:
        summary: The run's.
        pretrained: The run's model.
        calibration: The run's calibration; None takes the model's own if it is that one, and
            otherwise does without.
        seconds: How much of a recording is drawn and played, from its beginning; None are ten.

    Raises:
        StateError: If the model is another, or a calibration that was given cannot be read.
        CalibrationError: If a calibration that was given is another.
        InputError: If nothing is to be drawn.
    """
    if pretrained.model_id != summary["model_id"]:
        raise StateError(
            f"the run was made with model {summary['model']} {summary['model_id'][:12]}…, got "
            f"{pretrained.model_id[:12]}…; pass --model with that one, or --details 0"
        )
    judge, purifier = _judge_of(summary, pretrained, calibration), _purifier_of(pretrained)
    adapter, seed = adapter_of_json(summary["read"]), summary["seed"]
    if not isinstance(adapter, WaveformAdapter):
        return PictureExaminer(pretrained, adapter, seed, judge, purifier)
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
        return None  # the model's own is of an earlier version, so not this run's
    if calibration.fingerprint == summary["calibration"]:
        return Judge(calibration, summary["false_positive_rate"])
    if given is not None:
        raise CalibrationError(
            f"the run was judged with calibration {summary['calibration'][:12]}…, {given} is "
            f"{calibration.fingerprint[:12]}…; pass --calibration with that one, or leave it out"
        )
    return None


def _purifier_of(pretrained: PretrainedModel) -> Purifier | None:
    return None if pretrained.card.purifier_path is None else shipped_purifier(pretrained)
