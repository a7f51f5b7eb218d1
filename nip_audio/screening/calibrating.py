"""Fit a calibration on clean recordings or images, with attacks made on the spot or without."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.pipeline import make_pipeline
from torch import Tensor

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.io import Audio
from nip_audio.audio.manifest import Recording
from nip_audio.audio.windows import windows_of
from nip_audio.core.modality import Reader
from nip_audio.core.nccr import NccrConfig
from nip_audio.core.seeds import seed_of
from nip_audio.detectors.conformal import files_needed, out_of_fold_distances
from nip_audio.detectors.nccr_measure import signed_entries
from nip_audio.detectors.rates import LogRates
from nip_audio.errors import CalibrationError, FileError, InputError
from nip_audio.models.enrolment import embed_audio
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.kind import Kind, read_once
from nip_audio.screening.learning import (
    MOST_WINDOWS,
    LearntResponse,
    learn_response,
    response_config,
)
from nip_audio.screening.measure import default_config, device_of
from nip_audio.screening.measured import Facts, Measured
from nip_audio.screening.modalities import kind_of
from nip_audio.screening.nccr_detector import NccrDetector
from nip_audio.screening.probes import NccrProbe, Place, ResponseProbe
from nip_audio.screening.recordings import LEAST_NOISE_RMS, Recordings, fit_domain, voices_of
from nip_audio.screening.response import NARROW

__all__ = ["LEAST_FILES", "LEAST_SPEAKERS", "Learnt", "calibrate", "calibrate_with_attacks"]

LEAST_FILES = 20
"""Least number of usable files that a calibration is made of."""

LEAST_SPEAKERS = 5
"""Least number of their speakers: no speaker is in two of as many folds."""

Array = NDArray[np.float64]

_RATES = (0.01, 0.05)
_MOST_SOUND_S = 12.0  # of a file
_WINDOWS_A_FILE = 4
_FARTHEST = 5  # files that are named
_LONGEST_WINDOW_S, _SHORTEST_WINDOW_S = 3.0, 1.0


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
    probe = NccrProbe(config, names)
    ids: list[str] = []
    owners: list[str] = []
    contents: list[str] = []
    facts: list[Facts] = []
    measured: list[Measured] = []
    noisy: list[Measured] = []
    failures: list[FileError] = []
    for file, item in read_once(files, kind, failures, progress):
        known = kind.facts(item)
        unfit = kind.unfit(file, known)
        if unfit is not None:
            failures.append(unfit)
            continue
        ids.append(file.id)
        owners.append(kind.owner(file, item))
        contents.append(item.content_sha256)
        facts.append(known)
        measured.append(kind.measure(pretrained, item, probe, seed=seed))
        if tolerated_noise_rms is not None:
            copy = kind.noisy_copy(item, tolerated_noise_rms, seed)
            noisy.append(kind.measure(pretrained, copy, probe, seed=seed))
    _require_files(len(measured), len(failures), kind)
    evidence = np.stack([one.evidence for one in (*measured, *noisy)])
    every = [*owners, *(owners if noisy else ())]
    scale = LogRates(signed=signed_entries(config, head=names))
    judge = make_pipeline(scale, kind.new_detector()).fit(evidence)
    distances = out_of_fold_distances(judge, evidence, every, folds=LEAST_SPEAKERS)
    return Calibration(
        model_id=pretrained.model_id,
        detector=NccrDetector(
            probe,
            rates=judge[0],
            estimator=judge[1],
            distances=np.sort(distances),
        ),
        seen=tuple(sorted(contents)),
        sources=sources,
        failures=tuple(failures),
        farthest=_farthest(ids, distances),
        **kind.reference(owners, facts, measured, folds=LEAST_SPEAKERS),
    )


def _farthest(ids: Sequence[str], distances: Array) -> tuple[tuple[str, float], ...]:
    order = np.argsort(-distances[: len(ids)], kind="stable")[:_FARTHEST]
    return tuple((ids[i], float(distances[i])) for i in order)


def _farthest_files(ids: Sequence[str], distances: Array) -> tuple[tuple[str, float], ...]:
    """Return the files of the farthest windows, by the file of each window."""
    worst: dict[str, float] = {}
    for name, distance in zip(ids, distances, strict=True):
        worst[name] = max(worst.get(name, 0.0), float(distance))
    return _farthest(list(worst), np.array(list(worst.values())))


def _outlier(name: str, distance: float) -> FileError:
    return FileError(
        name,
        code="outlier",
        found=f"it looks attacked (distance {distance:.2f}), so it was left out",
        remedy="listen to it; if it is genuine, and such files occur at your site, calibrate again "
        "and keep it (--keep-outliers, or keep_outliers=True)",
    )


@dataclass(frozen=True)
class Learnt:
    """A calibration with attacks, and what it does with speakers that it has not heard.

    Attributes:
        calibration: Fitted calibration.
        found: Share of the attacked windows that is found, by attack and false-positive rate.
        mistaken: Share of the harmless windows that is taken for attacked, in the same way.
        low_rate: Number of recordings that are sampled at less than the model's rate.
    """

    calibration: Calibration
    found: Mapping[str, Mapping[float, float]]
    mistaken: Mapping[str, Mapping[float, float]]
    low_rate: int = 0


def calibrate_with_attacks(
    pretrained: PretrainedModel,
    files: Iterable[Recording],
    reader: WaveformAdapter,
    purifier: GuidedNip,
    *,
    names: bool | None = None,
    seed: int = 0,
    sources: str = "",
    kept: Path | None = None,
    keep_outliers: bool = False,
    progress: Callable[[Recording], None] = lambda recording: None,
    lesson_done: Callable[[str], None] = lambda lesson: None,
) -> Learnt:
    """Fit a calibration on clean recordings, on harmless changes of them and on attacks on them.

    The recordings give the windows from which all lessons are made (``screening.lessons``), at most
    four of each and 300 in all.

    Args:
        pretrained: Model that the calibration is for; gradients must reach its waveforms.
        files: Clean recordings like those that will be screened. No speaker is in two folds; a
            recording without a speaker counts as one.
        reader: Reader of the files.
        purifier: Purifier of the same model, whose response is measured. It should not have been
            trained on these files.
        names: Whether margins of the predicted label are measured as well; None as in
            ``calibrate``.
        seed: Seed of all random draws.
        sources: Description of the files in words.
        kept: Folder that keeps measured lessons, from which an interrupted fit resumes.
        keep_outliers: Whether files that look attacked themselves are learned from, too. If not,
            they are among the ``failures`` of the calibration.
        progress: Called after each file.
        lesson_done: Called with the name of each lesson that is measured, one of ``LESSONS``.

    Raises:
        CalibrationError: If fewer than 20 files are usable, they are of fewer than five speakers,
            or no attack moves the model.
    """
    kind = Recordings(reader)
    names = kind.names(pretrained, names)
    rate = reader.settings.sample_rate_hz
    ids: list[str] = []
    owners: list[str] = []
    contents: list[str] = []
    voices: list[Array] = []
    sounds: list[Tensor] = []
    low_rate = 0
    failures: list[FileError] = []
    for file, item in read_once(files, kind, failures, progress):
        audio = cast(Audio, item)
        sound = audio.mixture.sound
        low_rate += audio.source_rate_hz < rate
        ids.append(file.id)
        owners.append(kind.owner(file, audio))
        contents.append(audio.content_sha256)
        voices.append(_voice(pretrained, audio.samples))
        sounds.append(audio.samples[torch.from_numpy(sound)][: round(_MOST_SOUND_S * rate)])
    _require_files(len(sounds), len(failures), kind)
    typical = float(np.median([len(one) for one in sounds])) / rate
    window_s = min(_LONGEST_WINDOW_S, max(_SHORTEST_WINDOW_S, round(typical, 2)))
    probe = ResponseProbe(
        response_config(default_config(pretrained)), names, purifier, window_s=window_s
    )
    windows, of_file = _windows(sounds, window_s, rate, seed)
    learnt, outliers = learn_response(
        pretrained,
        probe,
        windows,
        [owners[i] for i in of_file],
        file_of=of_file,
        sample_rate_hz=rate,
        seed=seed,
        kept=kept,
        keep_outliers=keep_outliers,
        progress=lesson_done,
    )
    failures += [_outlier(ids[i], distance) for i, distance in outliers.items()]
    clean = [i for i in range(len(ids)) if i not in outliers]
    _require_files(len(clean), len(failures), kind)
    wide, narrow = (
        fit_domain(*learnt.spectra(narrow=narrow), folds=LEAST_SPEAKERS) for narrow in (False, True)
    )
    calibration = Calibration(
        model_id=pretrained.model_id,
        detector=learnt.detector,
        seen=tuple(sorted({*(contents[i] for i in clean), *purifier.seen})),
        sources=sources,
        failures=tuple(failures),
        farthest=_farthest_files([ids[i] for i in of_file if i not in outliers], learnt.recorded),
        sample_rate_hz=rate,
        domain=wide[0],
        domain_distances=wide[1],
        narrow_domain=narrow[0],
        narrow_domain_distances=narrow[1],
        **voices_of([owners[i] for i in clean], np.stack([voices[i] for i in clean])),
    )
    return Learnt(calibration, *_shares(learnt), low_rate)


def _windows(
    sounds: Sequence[Tensor], window_s: float, sample_rate_hz: int, seed: int
) -> tuple[list[Tensor], list[int]]:
    """Return windows of sounds and the place of each one's sound, at first one of each."""
    most = round(window_s * sample_rate_hz)
    cut = [windows_of(one, most=most, sample_rate_hz=sample_rate_hz) for one in sounds]
    order = np.random.default_rng(seed_of(seed, "windows")).permutation(len(sounds)).tolist()
    turns = [(i, turn) for turn in range(_WINDOWS_A_FILE) for i in order if turn < len(cut[i])]
    chosen = sorted(turns[:MOST_WINDOWS])
    return [cut[i][turn].samples for i, turn in chosen], [i for i, _ in chosen]


@torch.no_grad()
def _voice(pretrained: PretrainedModel, samples: Tensor) -> Array:
    embedding = embed_audio(pretrained, samples.to(device_of(pretrained.model)))
    return np.asarray(embedding.cpu().double().numpy())


def _shares(
    learnt: LearntResponse,
) -> tuple[dict[str, dict[float, float]], dict[str, dict[float, float]]]:
    """Return which shares of attacked and of harmless windows are flagged, by rate."""
    detector = learnt.detector
    rates = [rate for rate in _RATES if detector.files >= files_needed(rate)]
    found: dict[str, dict[float, float]] = {}
    mistaken: dict[str, dict[float, float]] = {}
    for name, distances in learnt.distances.items():
        narrow = detector.kinds.get(name) == NARROW or " at 8 kHz" in name
        limits = {rate: detector.threshold(rate, Place(narrow)) for rate in rates}
        shares = {rate: float((distances > limit).mean()) for rate, limit in limits.items()}
        (mistaken if name in detector.scores else found)[name] = shares
    return found, mistaken


def _require_files(usable: int, failed: int, kind: Kind) -> None:
    if usable < LEAST_FILES:
        plural = kind.modality.plural
        raise CalibrationError(
            f"got {usable} usable {plural} ({failed} failed), expected at least "
            f"{LEAST_FILES}; add clean {plural}: 99 or more allow a false-positive rate of 1 %"
        )
