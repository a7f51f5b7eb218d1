"""Fit a calibration on clean recordings or images."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from sklearn.pipeline import make_pipeline

from nip_audio.audio.manifest import Recording
from nip_audio.core.modality import Reader
from nip_audio.core.nccr import NccrConfig
from nip_audio.detectors.conformal import out_of_fold_distances
from nip_audio.detectors.nccr_measure import signed_entries
from nip_audio.detectors.rates import LogRates
from nip_audio.errors import CalibrationError, FileError, InputError
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.kind import read_once
from nip_audio.screening.measure import default_config
from nip_audio.screening.measured import Facts, Measured
from nip_audio.screening.modalities import kind_of
from nip_audio.screening.recordings import LEAST_NOISE_RMS

__all__ = ["calibrate"]

_FOLDS = 5
_MIN_FILES = 20


def calibrate(
    pretrained: PretrainedModel,
    files: Iterable[Recording],
    reader: Reader,
    config: NccrConfig | None = None,
    *,
    names: bool | None = None,
    seed: int = 0,
    tolerated_noise_rms: float | None = None,
    sources: str = "",
    progress: Callable[[Recording], None] = lambda recording: None,
) -> Calibration:
    """Fit a calibration on clean recordings, or images; unusable files and copies are left out.

    Args:
        pretrained: Model that the calibration is for.
        files: Clean files like those that will be screened. Where the speakers of recordings are
            known, they give the consistency and verification thresholds, and no speaker is in two
            folds.
        reader: Reader of the files.
        config: Settings of NCCR (neuron coverage change rate); None takes ``default_config``.
        names: Whether to take the evidence from the predicted label, for a model that was trained
            on the very speakers who will be screened. False takes it from the embedding. None
            takes the label for images and for a model that scores its speakers by logits, else the
            embedding.
        seed: Seed of the noise generator.
        tolerated_noise_rms: Largest RMS of white noise that shall raise no alarm, above 1e-4. A
            noisy copy of each recording, with an RMS between 1e-4 and this, then counts as clean.
            Weak attacks, and those that look like noise, become harder to detect. None adds no
            copies.
        sources: Description of the files in words.
        progress: Called after each file.

    Raises:
        CalibrationError: If fewer than 20 files are usable, if recordings are of fewer than five
            speakers (a recording without a speaker counts as one), or if ``names`` is True and the
            model has no classifier.
        InputError: If the tolerated noise is not in (1e-4, 1], or does not apply.
    """
    kind = kind_of(reader)
    names = kind.names(pretrained, names)
    if tolerated_noise_rms is not None and not LEAST_NOISE_RMS < tolerated_noise_rms <= 1:
        raise InputError(
            f"tolerated noise is {tolerated_noise_rms} RMS, expected more than {LEAST_NOISE_RMS} "
            "and at most 1 (full scale); pass for example 0.01, which is loud hiss"
        )
    config = default_config(pretrained) if config is None else config
    owners: list[str] = []
    contents: list[str] = []
    facts: list[Facts] = []
    measured: list[Measured] = []
    noisy: list[Measured] = []
    failures: list[FileError] = []
    for file, item in read_once(files, kind, failures, progress):
        owners.append(kind.owner(file, item))
        contents.append(item.content_sha256)
        facts.append(kind.facts(item))
        measured.append(kind.measure(pretrained, item, config, names=names, seed=seed))
        if tolerated_noise_rms is not None:
            copy = kind.noisy_copy(item, tolerated_noise_rms, seed)
            noisy.append(kind.measure(pretrained, copy, config, names=names, seed=seed))
    if len(measured) < _MIN_FILES:
        plural = kind.modality.plural
        raise CalibrationError(
            f"got {len(measured)} usable {plural} ({len(failures)} failed), expected at least "
            f"{_MIN_FILES}; add clean {plural}: 99 or more allow a false-positive rate of 1 %"
        )
    evidence = np.stack([one.evidence for one in (*measured, *noisy)])
    every = [*owners, *(owners if noisy else ())]
    scale = LogRates(signed=signed_entries(config, head=names))
    judge = make_pipeline(scale, kind.new_detector()).fit(evidence)
    return Calibration(
        model_id=pretrained.model_id,
        names=names,
        config=config,
        rates=judge[0],
        detector=judge[1],
        distances=np.sort(out_of_fold_distances(judge, evidence, every, folds=_FOLDS)),
        seen=tuple(sorted(contents)),
        sources=sources,
        failures=tuple(failures),
        **kind.reference(owners, facts, measured, folds=_FOLDS),
    )
