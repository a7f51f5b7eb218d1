"""Calibration: what clean files look like to one model, and the thresholds that follow from it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from nip_audio.core.decision import evidence_names
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
)
from nip_audio.detectors.density import CleanDensity
from nip_audio.detectors.nccr_measure import signed_entries
from nip_audio.detectors.rates import LogRates
from nip_audio.errors import CalibrationError, FileError, InputError, StateError
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.measured import Measurement, PictureMeasurement
from nip_audio.screening.words import PICTURES, RECORDINGS, Words

__all__ = ["Calibration", "choose_calibration"]

_KIND = "calibration"
_OF_PICTURES = "picture calibration"

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """Fitted on clean recordings, or pictures, alone, for one model.

    Attributes:
        model_id: The model.
        sample_rate_hz: Of the model; None if it takes pictures.
        names: Whether the evidence is of the name that the model gives, or of the voice.
        config: NCCR settings; screening measures with the same.
        rates: Length correction of the evidence.
        detector: Distance from clean evidence.
        distances: (n,) sorted out-of-fold distances of the clean files, noisy copies included.
        domain: Distance of spectra; None of pictures, which have none.
        domain_distances: (n,) likewise; none of pictures.
        consistencies: (m,) sorted consistency scores of speakers with three recordings or more.
        verification_threshold: Cosine at the equal error rate, from which two recordings are
            taken for one voice; None without repeated speakers.
        scale: Of pictures, the least ``PictureFacts.scale`` among them.
        seen: SHA-256 of the content of each file, for the refusal of overlaps.
        sources: In words, what it was fitted on.
        failures: Files left out.
    """

    model_id: str
    sample_rate_hz: int | None
    names: bool
    config: NccrConfig
    rates: LogRates
    detector: CleanDistance | CleanDensity
    distances: Array
    seen: tuple[str, ...]
    sources: str
    domain: CleanDistance | None = None
    domain_distances: Array = field(default_factory=lambda: np.zeros(0))
    consistencies: Array = field(default_factory=lambda: np.zeros(0))
    verification_threshold: float | None = None
    scale: float = 1.0
    failures: tuple[FileError, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Hash of everything a verdict depends on."""
        settings = f"{self.model_id}{self.config}{self.names}{self.verification_threshold}"
        digest = hashlib.sha256(settings.encode())
        arrays = [self.distances, self.domain_distances, self.consistencies]
        for fitted in (self.rates, self.detector, *([] if self.domain is None else [self.domain])):
            arrays += [tensor.numpy() for _, tensor in sorted(fitted.to_tensors().items())]
        for array in arrays:
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    @property
    def of_pictures(self) -> bool:
        """Whether it judges pictures, not recordings."""
        return self.sample_rate_hz is None

    @property
    def words(self) -> Words:
        """What the files that it judges are called."""
        return PICTURES if self.of_pictures else RECORDINGS

    def threshold(self, false_positive_rate: float) -> float:
        """Distance above which a file is flagged as adversarial."""
        return conformal_threshold(self.distances, false_positive_rate)

    def distance(self, measured: Measurement | PictureMeasurement) -> float:
        """Distance of a file from clean ones."""
        return float(self.distances_of([measured.evidence])[0])

    def distances_of(self, evidence: ArrayLike) -> Array:
        """Distances of many rows of evidence, (n,)."""
        return self.detector.distance(self.rates.transform(evidence))

    def farthest(self, measured: Measurement | PictureMeasurement) -> tuple[Noise, str, float]:
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
        state = _state_of_pictures(self) if self.of_pictures else _state_of_recordings(self)
        save_state(path, state, force=force)

    @staticmethod
    def load(path: Path, *, model_id: str) -> Calibration:
        """Read, refusing a calibration made for another model or by an earlier version."""
        state = load_state(path, kind=(_KIND, _OF_PICTURES), model_id=model_id)
        if state.kind == _KIND and "names" not in state.meta:
            raise StateError(
                f"{path} was made by an earlier version of nip-audio; make it anew: nip-audio "
                "calibrate CLEAN_DIR"
            )
        with reading_state(path):
            return _recordings_of(state) if state.kind == _KIND else _pictures_of(state)


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


def _state_of_recordings(calibration: Calibration) -> State:
    domain = calibration.domain
    if domain is None:
        raise InputError("a calibration of recordings has no spectra, expected some")
    tensors = {
        **_fitted(calibration),
        "domain_distances": torch.from_numpy(calibration.domain_distances),
        "consistencies": torch.from_numpy(calibration.consistencies),
        **_named("domain", domain.to_tensors()),
    }
    meta = {
        "sample_rate_hz": calibration.sample_rate_hz,
        "names": calibration.names,
        "nccr": calibration.config.to_json(),
        "detector_offset": calibration.detector.offset_,
        "domain_offset": domain.offset_,
        "verification_threshold": calibration.verification_threshold,
        "seen": list(calibration.seen),
        "sources": calibration.sources,
    }
    return State(_KIND, calibration.model_id, tensors, meta)


def _recordings_of(state: State) -> Calibration:
    meta = state.meta
    config, names = NccrConfig.from_json(meta["nccr"]), bool(meta["names"])
    rates, detector, domain = (_part(state, name) for name in ("rates", "detector", "domain"))
    return Calibration(
        model_id=state.model_id,
        sample_rate_hz=int(meta["sample_rate_hz"]),
        names=names,
        config=config,
        rates=LogRates.from_tensors(rates, signed=signed_entries(config, head=names)),
        detector=CleanDistance.from_tensors(detector, offset=meta["detector_offset"]),
        distances=state.tensors["distances"].numpy(),
        seen=tuple(meta["seen"]),
        sources=str(meta["sources"]),
        domain=CleanDistance.from_tensors(domain, offset=meta["domain_offset"]),
        domain_distances=state.tensors["domain_distances"].numpy(),
        consistencies=state.tensors["consistencies"].numpy(),
        verification_threshold=meta["verification_threshold"],
    )


def _state_of_pictures(calibration: Calibration) -> State:
    detector = calibration.detector
    if not isinstance(detector, CleanDensity):
        raise InputError(f"the detector is {detector!r}, expected CleanDensity for pictures")
    meta = {
        "nccr": calibration.config.to_json(),
        "signed": calibration.rates.signed,
        "offset": detector.offset_,
        "neighbours": detector.neighbours,
        "scale": calibration.scale,
        "seen": list(calibration.seen),
        "sources": calibration.sources,
    }
    return State(_OF_PICTURES, calibration.model_id, _fitted(calibration), meta)


def _pictures_of(state: State) -> Calibration:
    meta = state.meta
    return Calibration(
        model_id=state.model_id,
        sample_rate_hz=None,
        names=True,
        config=NccrConfig.from_json(meta["nccr"]),
        rates=LogRates.from_tensors(_part(state, "rates"), signed=meta["signed"]),
        detector=CleanDensity.from_tensors(
            _part(state, "detector"), offset=meta["offset"], neighbours=meta["neighbours"]
        ),
        distances=state.tensors["distances"].numpy(),
        # the first calibrations of pictures were made of PNGs of the model's size and say neither
        seen=tuple(meta.get("seen", ())),
        sources=str(meta.get("sources", "")),
        scale=float(meta.get("scale", 1.0)),
    )


def _fitted(calibration: Calibration) -> dict[str, torch.Tensor]:
    """Return what every calibration keeps: clean distances, and what they are measured by."""
    return {
        "distances": torch.from_numpy(calibration.distances),
        **_named("rates", calibration.rates.to_tensors()),
        **_named("detector", calibration.detector.to_tensors()),
    }


def _named(part: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{part}.{name}": tensor for name, tensor in tensors.items()}


def _part(state: State, name: str) -> dict[str, torch.Tensor]:
    start = f"{name}."
    return {k.removeprefix(start): t for k, t in state.tensors.items() if k.startswith(start)}
