"""Fit a calibration on clean recordings."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.pipeline import make_pipeline

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.io import Audio
from nip_audio.audio.manifest import Recording
from nip_audio.core.metrics import all_pairs_eer
from nip_audio.core.nccr import NccrConfig
from nip_audio.detectors.clean import CleanDistance
from nip_audio.detectors.conformal import out_of_fold_distances
from nip_audio.detectors.consistency import consistency_scores
from nip_audio.detectors.nccr_measure import signed_entries
from nip_audio.detectors.rates import LogRates
from nip_audio.errors import AudioError, CalibrationError, FileError, InputError
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.measure import measure, noise_generator
from nip_audio.screening.measured import Measurement
from nip_audio.screening.reading import read_once

__all__ = ["calibrate"]

_FOLDS = 5
_MIN_FILES = 20
_FILES_A_SPEAKER = 3
_LEAST_NOISE_RMS = 1e-4

Array = NDArray[np.float64]


def calibrate(
    pretrained: PretrainedModel,
    recordings: Iterable[Recording],
    adapter: WaveformAdapter,
    config: NccrConfig,
    *,
    names: bool | None = None,
    seed: int = 0,
    tolerated_noise_rms: float | None = None,
    sources: str = "",
    progress: Callable[[Recording], None] = lambda recording: None,
) -> Calibration:
    """Fit a calibration on clean recordings; unusable files are left out and listed.

    Args:
        pretrained: Model that the calibration is for.
        recordings: Clean recordings like those that will be screened. Where speakers are known,
            they give the consistency and verification thresholds, and no speaker is in two folds.
        adapter: Reader of the files.
        config: Settings of NCCR (neuron coverage change rate).
        names: Whether to take the evidence from the predicted label, for a model that was trained
            on the very speakers who will be screened. False takes it from the embedding. None
            takes the label if the model scores its speakers by logits, else the embedding.
        seed: Seed of the noise generator.
        tolerated_noise_rms: Largest RMS of white noise that shall raise no alarm, above 1e-4. A
            noisy copy of each recording, with an RMS between 1e-4 and this, then counts as clean.
            Weak attacks, and those that look like noise, become harder to detect. None adds no
            copies.
        sources: Description of the recordings in words.
        progress: Called after each recording.

    Raises:
        CalibrationError: If fewer than 20 recordings are usable, if they are of fewer than five
            speakers (a recording without a speaker counts as one), or if ``names`` is True and the
            model has no classifier.
        InputError: If the tolerated noise is not in (1e-4, 1].
    """
    model = pretrained.model
    if names is None:
        names = model.head is not None and model.output_kind == "logits"
    if names and model.head is None:
        raise CalibrationError(
            f"model {pretrained.card.name} names no speakers, expected a model with a classifier; "
            "calibrate on voices instead, with names=False"
        )
    if tolerated_noise_rms is not None and not _LEAST_NOISE_RMS < tolerated_noise_rms <= 1:
        raise InputError(
            f"tolerated noise is {tolerated_noise_rms} RMS, expected more than {_LEAST_NOISE_RMS} "
            "and at most 1 (full scale); pass for example 0.01, which is loud hiss"
        )
    measured: list[tuple[str, str, Measurement]] = []
    noisy: list[tuple[str, Measurement]] = []
    failures: list[FileError] = []
    for recording, audio in read_once(recordings, adapter.read, _copy, failures, progress):
        group = recording.speaker or recording.id
        result = measure(pretrained, audio, config, names=names, seed=seed)
        measured.append((group, audio.content_sha256, result))
        if tolerated_noise_rms is not None:
            copy = _noisy_copy(audio, tolerated_noise_rms, seed)
            noisy.append((group, measure(pretrained, copy, config, names=names, seed=seed)))
    if len(measured) < _MIN_FILES:
        raise CalibrationError(
            f"got {len(measured)} usable recordings ({len(failures)} failed), expected at least "
            f"{_MIN_FILES}; add clean recordings: 99 or more allow a false-positive rate of 1 %"
        )
    groups = [group for group, _, _ in measured]
    every = [*(m for _, _, m in measured), *(m for _, m in noisy)]
    evidence = np.stack([m.evidence for m in every])
    owners = [*groups, *(group for group, _ in noisy)]
    spectra = np.stack([m.spectrum for _, _, m in measured])
    embeddings = np.stack([m.embedding for _, _, m in measured])
    scale = LogRates(signed=signed_entries(config, head=names))
    judge = make_pipeline(scale, CleanDistance()).fit(evidence)
    domain = CleanDistance(shrinkage=None).fit(spectra)
    return Calibration(
        model_id=pretrained.model_id,
        sample_rate_hz=adapter.settings.sample_rate_hz,
        names=names,
        config=config,
        rates=judge[0],
        detector=judge[1],
        distances=np.sort(out_of_fold_distances(judge, evidence, owners, folds=_FOLDS)),
        domain=domain,
        domain_distances=np.sort(out_of_fold_distances(domain, spectra, groups, folds=_FOLDS)),
        consistencies=np.sort(_consistencies(groups, embeddings)),
        verification_threshold=_verification_threshold(groups, embeddings),
        seen=tuple(sorted(content for _, content, _ in measured)),
        sources=sources,
        failures=tuple(failures),
    )


def _copy(recording: Recording) -> AudioError:
    return AudioError(
        recording.path,
        code="duplicate",
        found="the same audio is already in the calibration",
        remedy="add other recordings, because copies do not allow a lower false-positive rate",
    )


def _noisy_copy(audio: Audio, largest_rms: float, seed: int) -> Audio:
    """Return a copy with white noise, whose level and samples depend on seed and content."""
    generator = noise_generator(seed, f"tolerated noise:{audio.sha256}")
    share = float(torch.rand(1, generator=generator))
    rms = _LEAST_NOISE_RMS * (largest_rms / _LEAST_NOISE_RMS) ** share
    noise = rms * torch.randn(audio.samples.shape, generator=generator)
    return replace(
        audio,
        samples=(audio.samples + noise).clamp(-1.0, 1.0),
        sha256=hashlib.sha256(f"{audio.sha256}:{rms}".encode()).hexdigest(),
    )


def _consistencies(groups: Sequence[str], embeddings: Array) -> Array:
    rows: dict[str, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        rows[group].append(i)
    scores = [
        consistency_scores(embeddings[members])
        for members in rows.values()
        if len(members) >= _FILES_A_SPEAKER
    ]
    return np.concatenate(scores) if scores else np.zeros(0)


def _verification_threshold(groups: Sequence[str], embeddings: Array) -> float | None:
    eer = all_pairs_eer(embeddings @ embeddings.T, groups)
    return None if eer is None else eer.threshold
