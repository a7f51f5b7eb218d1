"""Calibrate the detector of a model on clean files, with attacks on them where that is possible."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.manifest import Recording
from nip_audio.core.modality import Reader
from nip_audio.core.state import require_new
from nip_audio.errors import CalibrationError
from nip_audio.models.adopted import attach_companion, has_gradient
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.screening.calibrating import (
    LEAST_FILES,
    LEAST_SPEAKERS,
    calibrate,
    calibrate_with_attacks,
)
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.measure import default_config
from nip_audio.screening.modalities import KINDS
from nip_audio.workflows.fit import fit_purifier
from nip_audio.workflows.fit_settings import GuidedFit

__all__ = ["Calibrated", "Shares", "calibrate_files", "without_attacks"]

Shares = Mapping[str, Mapping[float, float]]
"""Share of windows that is flagged, by condition and false-positive rate."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, and how many parts of it are done and are to be done."""


@dataclass(frozen=True)
class Calibrated:
    """A calibration, and what is known of it.

    Attributes:
        calibration: Fitted calibration.
        found: Share of attacked windows of held-out speakers that is found; empty if clean-only.
        mistaken: Share of harmless windows of held-out speakers that is taken for attacked.
        purifier: File of the purifier that was fitted for it; None if the model had one.
        note: Why no attacks were made, or what the recordings lack, in words; None if there is
            nothing to say.
    """

    calibration: Calibration
    found: Shares = field(default_factory=dict)
    mistaken: Shares = field(default_factory=dict)
    purifier: Path | None = None
    note: str | None = None


def without_attacks(pretrained: PretrainedModel) -> str | None:
    """Return why a model cannot be calibrated with attacks, in words; None if it can."""
    card = pretrained.card
    kind = KINDS[card.modality]
    if not kind.learns_attacks:
        return f"{card.name} takes {kind.modality.plural}: for them there is a clean-only detector"
    if not has_gradient(pretrained.model, card.sample_rate_hz):
        return (
            f"no gradient reaches the waveform in {card.name}, so no attacks were made on it: this "
            "is the clean-only detector, which takes noise for an attack more often"
        )
    return None


def calibrate_files(
    pretrained: PretrainedModel,
    files: Sequence[Recording],
    reader: Reader,
    out: Path,
    *,
    clean_only: bool = False,
    names: bool | None = None,
    draws: int = 1,
    tolerated_noise_rms: float | None = None,
    seed: int = 0,
    sources: str = "",
    force: bool = False,
    keep_outliers: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> Calibrated:
    """Calibrate a model on clean files, and write the calibration.

    With attacks, a model that comes without a guided purifier gets one first, fitted to half of
    the speakers; the other half makes the calibration. What was measured before an interruption is
    kept in ``<out>.partial``.

    Args:
        pretrained: Model to calibrate; its card names the calibration afterwards, if it can.
        files: Clean files like those that will be screened.
        reader: Reader of the files.
        out: File to write.
        clean_only: Learn what clean files are like and nothing else. Settings for that alone are
            ``draws`` and ``tolerated_noise_rms``, each of which implies it.
        names: Judge by the predicted label or by the embedding; see ``calibrate``.
        draws: Draws of each noise for each file.
        tolerated_noise_rms: Noise up to this rms shall be no alarm.
        seed: Seed of all random draws.
        sources: Description of the files in words.
        force: Whether an existing file is overwritten.
        keep_outliers: With attacks, whether files that look attacked are learned from as well.
        progress: Called after each part.

    Raises:
        CalibrationError: If there are too few files or speakers.
        OutputError: If ``out`` exists and ``force`` is false, or cannot be written.
    """
    require_new(out, force=force)
    note = None if clean_only else without_attacks(pretrained)
    if clean_only or note or draws != 1 or tolerated_noise_rms is not None:
        counted = _Counter(progress, "calibrating", len(files))
        calibration = calibrate(
            pretrained,
            files,
            reader,
            default_config(pretrained, draws=draws),
            names=names,
            seed=seed,
            tolerated_noise_rms=tolerated_noise_rms,
            sources=sources,
            progress=counted,
        )
        calibration.save(out, force=force)
        told = KINDS[pretrained.card.modality].learns_attacks  # of images nobody expects attacks
        return Calibrated(calibration, note=note if told else None)
    return _with_attacks(
        pretrained,
        files,
        cast(WaveformAdapter, reader),
        out,
        names,
        seed=seed,
        sources=sources,
        force=force,
        keep_outliers=keep_outliers,
        progress=progress,
    )


def _with_attacks(
    pretrained: PretrainedModel,
    files: Sequence[Recording],
    reader: WaveformAdapter,
    out: Path,
    names: bool | None,
    *,
    seed: int,
    sources: str,
    force: bool,
    keep_outliers: bool,
    progress: Progress,
) -> Calibrated:
    from nip_audio.screening.learning import LESSONS  # needs scikit-learn

    kept = out.with_name(f"{out.name}.partial")
    purifier, fitted = _purifier(pretrained, files, reader, out, seed, progress)
    rest = files if fitted is None else _halves(files)[1]
    done = calibrate_with_attacks(
        pretrained,
        rest,
        reader,
        purifier,
        names=names,
        seed=seed,
        sources=sources,
        kept=kept,
        keep_outliers=keep_outliers,
        progress=_Counter(progress, "reading", len(rest)),
        lesson_done=_Counter(progress, "lessons", len(LESSONS)),
    )
    done.calibration.save(out, force=force)
    shutil.rmtree(kept, ignore_errors=True)
    rate = reader.settings.sample_rate_hz
    note = None
    if done.low_rate:
        note = (
            f"{done.low_rate} of {done.calibration.files} recordings are sampled below {rate} Hz: "
            "the detector judges such audio, but has learned from them what wider recordings and "
            f"one voice are like, too; if recordings at {rate} Hz are screened, add some"
        )
    return Calibrated(done.calibration, done.found, done.mistaken, fitted, note)


def _purifier(
    pretrained: PretrainedModel,
    files: Sequence[Recording],
    reader: WaveformAdapter,
    out: Path,
    seed: int,
    progress: Progress,
) -> tuple[GuidedNip, Path | None]:
    """Return the model's guided purifier, or fit one to half of the speakers and write it."""
    path = out.with_name(f"{out.name}.purifier")
    own = pretrained.card.purifier_path
    # one that an interrupted calibration fitted has heard half of these speakers
    if own is not None and own.absolute() != path.absolute():
        return GuidedNip.load(own, model_id=pretrained.model_id), None
    if not path.exists():
        half, rest = _halves(files)
        speakers = len({_owner(file) for file in rest})
        if len(rest) < LEAST_FILES or speakers < LEAST_SPEAKERS:
            raise CalibrationError(
                f"{pretrained.card.name} has no purifier yet, and without the half of the speakers "
                f"that one is fitted to, {len(rest)} files of {speakers} speakers are left, "
                f"expected at least {LEAST_FILES} of {LEAST_SPEAKERS}; add clean files of more "
                "speakers, or use `clean_only=True`"
            )
        fit_purifier(
            pretrained,
            half,
            reader,
            GuidedFit(),
            path,
            seed=seed,
            progress=lambda done, total, _: progress("fitting a purifier", done, total),
        )
        attach_companion(pretrained.card, "purifier", path)
    return GuidedNip.load(path, model_id=pretrained.model_id), path


def _halves(files: Sequence[Recording]) -> tuple[list[Recording], list[Recording]]:
    """Divide files into those of a purifier and those of its calibration; no speaker is in both."""
    chosen = set(sorted({_owner(file) for file in files})[1::2])
    return (
        [file for file in files if _owner(file) in chosen],
        [file for file in files if _owner(file) not in chosen],
    )


def _owner(file: Recording) -> str:
    return file.speaker or file.id


class _Counter:
    """Counts the calls of a callback with one argument, and tells how many were made."""

    def __init__(self, progress: Progress, what: str, total: int) -> None:
        self._progress, self._what, self._total, self._done = progress, what, total, 0

    def __call__(self, _: object) -> None:
        self._done += 1
        self._progress(self._what, self._done, self._total)
