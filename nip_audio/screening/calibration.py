"""Calibration: what clean audio looks like to one model, and the thresholds that follow from it."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.pipeline import make_pipeline

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.io import Audio
from nip_audio.audio.manifest import Recording
from nip_audio.core.decision import evidence_names
from nip_audio.core.metrics import all_pairs_eer
from nip_audio.core.nccr import NccrConfig
from nip_audio.core.noise import Noise
from nip_audio.core.state import State, load_state, reading_state, save_state
from nip_audio.detectors.clean import CleanDistance
from nip_audio.detectors.conformal import (
    FILES_FOR_TAIL,
    TailFit,
    conformal_p_value,
    conformal_threshold,
    fit_tail,
    out_of_fold_distances,
)
from nip_audio.detectors.consistency import consistency_scores
from nip_audio.detectors.nccr_measure import signed_entries
from nip_audio.detectors.rates import LogRates
from nip_audio.errors import AudioError, CalibrationError, InputError, StateError
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.measure import Measurement, measure, noise_generator

__all__ = ["Calibration", "calibrate", "choose_calibration"]

_KIND = "calibration"
_FOLDS = 5
_MIN_FILES = 20
_FILES_A_SPEAKER = 3
_LEAST_NOISE_RMS = 1e-4

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """Fitted on clean audio alone, for one model.

    Attributes:
        model_id: The model.
        sample_rate_hz: Of the model.
        names: Whether the evidence is of the name that the model gives, or of the voice.
        config: NCCR settings; screening measures with the same.
        rates: Length correction of the evidence.
        detector: Distance from clean evidence.
        distances: (n,) sorted out-of-fold distances of the clean recordings, noisy copies included.
        domain: Distance of spectra.
        domain_distances: (n,) likewise.
        consistencies: (m,) sorted consistency scores of speakers with three recordings or more.
        verification_threshold: Cosine at the equal error rate, from which two recordings are
            taken for one voice; None without repeated speakers.
        seen: SHA-256 of the content of each recording, for the refusal of overlaps.
        sources: In words, what it was fitted on.
        failures: Recordings left out.
    """

    model_id: str
    sample_rate_hz: int
    names: bool
    config: NccrConfig
    rates: LogRates
    detector: CleanDistance
    distances: Array
    domain: CleanDistance
    domain_distances: Array
    consistencies: Array
    verification_threshold: float | None
    seen: tuple[str, ...]
    sources: str
    failures: tuple[AudioError, ...] = field(default=())

    @property
    def fingerprint(self) -> str:
        """Hash of everything a verdict depends on."""
        settings = f"{self.model_id}{self.config}{self.names}{self.verification_threshold}"
        digest = hashlib.sha256(settings.encode())
        arrays = [self.distances, self.domain_distances, self.consistencies]
        for fitted in (self.rates, self.detector, self.domain):
            arrays += [tensor.numpy() for _, tensor in sorted(fitted.to_tensors().items())]
        for array in arrays:
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def threshold(self, false_positive_rate: float) -> float:
        """Distance above which a recording is flagged as adversarial."""
        return conformal_threshold(self.distances, false_positive_rate)

    def distance(self, measured: Measurement) -> float:
        """Distance of a recording from clean audio."""
        return float(self.distances_of([measured.evidence])[0])

    def distances_of(self, evidence: ArrayLike) -> Array:
        """Distances of many rows of evidence, (n,)."""
        return self.detector.distance(self.rates.transform(evidence))

    def farthest(self, measured: Measurement) -> tuple[Noise, str, float]:
        """Return what is farthest off under which noise, and by how many robust deviations."""
        deviations = self.detector.explain(self.rates.transform([measured.evidence])[0])
        worst = int(np.argmax(np.abs(deviations)))
        noise, what = evidence_names(self.config, head=self.names)[worst].split(" | ")
        (found,) = (n for n in self.config.noises if n.name == noise)
        return found, what, float(deviations[worst])

    def p_value(self, distance: float) -> float:
        """Conformal p-value of a distance: valid whatever the distribution, ≥ 1 / (n + 1)."""
        return conformal_p_value(self.distances, distance)

    def tail_p_value(self, distance: float) -> float:
        """P-value that goes on below 1 / (n + 1): beyond the clean distances' tail it is fitted.

        An extrapolation, for comparing many files. With fewer than 200 recordings there is no tail
        to fit, and this is the conformal one.
        """
        if self._tail is None or distance <= self._tail.limit:
            return self.p_value(distance)
        return self._tail.p_value(distance)

    @cached_property
    def _tail(self) -> TailFit | None:
        return fit_tail(self.distances) if len(self.distances) >= FILES_FOR_TAIL else None

    @property
    def inconsistent_share(self) -> float | None:
        """Share of the clean recordings that would have been called unlike their own folder."""
        if self.verification_threshold is None or len(self.consistencies) == 0:
            return None
        return float((self.consistencies < self.verification_threshold).mean())

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write atomically."""
        tensors = {
            "distances": torch.from_numpy(self.distances),
            "domain_distances": torch.from_numpy(self.domain_distances),
            "consistencies": torch.from_numpy(self.consistencies),
        }
        tensors |= {f"rates.{k}": t for k, t in self.rates.to_tensors().items()}
        tensors |= {f"detector.{k}": t for k, t in self.detector.to_tensors().items()}
        tensors |= {f"domain.{k}": t for k, t in self.domain.to_tensors().items()}
        meta = {
            "sample_rate_hz": self.sample_rate_hz,
            "names": self.names,
            "nccr": self.config.to_json(),
            "detector_offset": self.detector.offset_,
            "domain_offset": self.domain.offset_,
            "verification_threshold": self.verification_threshold,
            "seen": list(self.seen),
            "sources": self.sources,
        }
        save_state(path, State(_KIND, self.model_id, tensors, meta), force=force)

    @staticmethod
    def load(path: Path, *, model_id: str) -> Calibration:
        """Read, refusing a calibration made for another model or by an earlier version."""
        state = load_state(path, kind=_KIND, model_id=model_id)

        def parts(name: str) -> dict[str, torch.Tensor]:
            return {
                k.removeprefix(f"{name}."): t
                for k, t in state.tensors.items()
                if k.startswith(f"{name}.")
            }

        meta = state.meta
        if "names" not in meta:
            raise StateError(
                f"{path} was made by an earlier version of nip-audio; make it anew: nip-audio "
                "calibrate CLEAN_DIR"
            )
        with reading_state(path):
            config, names = NccrConfig.from_json(meta["nccr"]), bool(meta["names"])
            signed = signed_entries(config, head=names)
            return Calibration(
                model_id=model_id,
                sample_rate_hz=int(meta["sample_rate_hz"]),
                names=names,
                config=config,
                rates=LogRates.from_tensors(parts("rates"), signed=signed),
                detector=CleanDistance.from_tensors(
                    parts("detector"), offset=meta["detector_offset"]
                ),
                distances=state.tensors["distances"].numpy(),
                domain=CleanDistance.from_tensors(parts("domain"), offset=meta["domain_offset"]),
                domain_distances=state.tensors["domain_distances"].numpy(),
                consistencies=state.tensors["consistencies"].numpy(),
                verification_threshold=meta["verification_threshold"],
                seen=tuple(meta["seen"]),
                sources=str(meta["sources"]),
            )


def choose_calibration(pretrained: PretrainedModel, path: Path | None) -> Path:
    """Return the calibration file asked for, or the one that came with the model.

    Raises:
        CalibrationError: If there is neither.
    """
    chosen = path or pretrained.card.calibration_path
    if chosen is None:
        raise CalibrationError(
            f"model {pretrained.card.name} comes without a calibration; make one with: nip-audio "
            f"calibrate CLEAN_DIR --model {pretrained.card.name} --out my.calibration, and pass "
            "--calibration my.calibration (from Python, calibration='my.calibration')"
        )
    return chosen


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
    """Fit on clean recordings; bad files are left out and listed.

    Args:
        pretrained: Model.
        recordings: Clean audio like that to be screened; speakers, where known, give the
            consistency and verification thresholds and keep the folds apart.
        adapter: How files are read.
        config: NCCR settings.
        names: Take the evidence from the name that the model gives: for a model that names the very
            speakers who will be screened. Else from the voice. None takes the name where the model
            scores its speakers by logits, the voice where it compares embeddings.
        seed: Of the noise.
        tolerated_noise_rms: Take a noisy copy of each recording for clean as well: white noise
            whose rms is drawn between 1e-4 and this. Noise of that size is then no alarm any more;
            weak attacks, and those that look like noise, are harder to see.
        sources: What this audio is, in words.
        progress: Called after each recording.

    Raises:
        CalibrationError: With fewer than 20 usable recordings or five speakers or files, or asked
            for names of a model that gives none.
        InputError: If the tolerated noise is not above 1e-4.
    """
    model = pretrained.model
    if names is None:
        names = model.head is not None and model.output_kind == "logits"
    if names and model.head is None:
        raise CalibrationError(
            f"{pretrained.card.name} names no speakers; calibrate it for voices, without names"
        )
    if tolerated_noise_rms is not None and not _LEAST_NOISE_RMS < tolerated_noise_rms <= 1:
        raise InputError(
            f"tolerated noise is {tolerated_noise_rms} rms, expected more than {_LEAST_NOISE_RMS} "
            "and at most 1 (full scale); 0.01 is loud hiss"
        )
    measured: list[tuple[str, str, Measurement]] = []
    noisy: list[tuple[str, Measurement]] = []
    failures: list[AudioError] = []
    contents: set[str] = set()
    for recording in recordings:
        try:
            audio = recording.read(adapter.settings)
            if audio.content_sha256 in contents:
                raise AudioError(
                    recording.path,
                    code="duplicate",
                    found="the same audio is already in the calibration",
                    remedy="add other recordings: copies earn no lower false-positive rate",
                )
        except AudioError as err:
            failures.append(err)
        else:
            contents.add(audio.content_sha256)
            group = recording.speaker or recording.id
            result = measure(pretrained, audio, config, names=names, seed=seed)
            measured.append((group, audio.content_sha256, result))
            if tolerated_noise_rms is not None:
                copy = _noisy_copy(audio, tolerated_noise_rms, seed)
                noisy.append((group, measure(pretrained, copy, config, names=names, seed=seed)))
        progress(recording)
    if len(measured) < _MIN_FILES:
        raise CalibrationError(
            f"{len(measured)} usable recordings ({len(failures)} failed), expected at least "
            f"{_MIN_FILES}; 99 or more allow a false-positive rate of 1 %"
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


def _noisy_copy(audio: Audio, largest_rms: float, seed: int) -> Audio:
    """Add white noise; its level and its samples come from the seed and the content."""
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
