"""Store what clean files look like to one model, and derive the detection thresholds from it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
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
from nip_audio.detectors.conformal import (
    FILES_FOR_TAIL,
    TailFit,
    conformal_p_value,
    conformal_threshold,
    fit_tail,
)
from nip_audio.detectors.fitted import FittedDensity, FittedDistance, FittedRates
from nip_audio.detectors.nccr_measure import signed_entries
from nip_audio.errors import CalibrationError, FileError, InputError, StateError
from nip_audio.models.plda import Plda
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.measured import Measured

__all__ = ["Calibration", "choose_calibration", "find_threshold"]


Array = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """Reference distribution of clean recordings, or clean images, for one model.

    Attributes:
        model_id: Identity of the model.
        sample_rate_hz: Sample rate of the model; None if it takes images.
        names: Whether the evidence is how noise changes the predicted label (True) or the embedding
            (False).
        config: Settings of NCCR (neuron coverage change rate); screening uses the same ones.
        rates: Transform that corrects the evidence for the length of a file.
        detector: Measures the distance of a file's evidence from that of clean files.
        distances: (n,) sorted out-of-fold distances of the clean files and of their noisy copies.
        domain: Measures the distance of a spectrum from clean spectra; None for images.
        domain_distances: (n,) sorted out-of-fold distances of the clean spectra; empty for images.
        consistencies: (m,) sorted consistency scores of speakers with three recordings or more.
        verification_threshold: Cosine similarity, at the equal error rate, from which two
            recordings count as one voice; None if no speaker has two recordings.
        scale: Smallest ``ImageFacts.scale`` of the clean images; 1 for recordings.
        seen: SHA-256 of the content of each file, so that test files that were seen are refused.
        sources: Description of the clean files in words.
        failures: Files that were left out, and why.
    """

    model_id: str
    sample_rate_hz: int | None
    names: bool
    config: NccrConfig
    rates: FittedRates
    detector: FittedDistance | FittedDensity
    distances: Array
    seen: tuple[str, ...]
    sources: str
    domain: FittedDistance | None = None
    domain_distances: Array = field(default_factory=lambda: np.zeros(0))
    consistencies: Array = field(default_factory=lambda: np.zeros(0))
    verification_threshold: float | None = None
    scale: float = 1.0
    failures: tuple[FileError, ...] = ()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that a verdict depends on."""
        # in the words of the first calibrations, whose fingerprints stand in summaries of runs
        config = f"{self.config}".removesuffix(")") + ", tolerance=None)"
        settings = f"{self.model_id}{config}{self.names}{self.verification_threshold}"
        digest = hashlib.sha256(settings.encode())
        arrays = [self.distances, self.domain_distances, self.consistencies]
        for fitted in (self.rates, self.detector, *([] if self.domain is None else [self.domain])):
            arrays += [tensor.numpy() for _, tensor in sorted(fitted.to_tensors().items())]
        for array in arrays:
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    @property
    def tag(self) -> str:
        """Name of the modality of the files that it judges."""
        return "image" if self.sample_rate_hz is None else "audio"

    def threshold(self, false_positive_rate: float) -> float:
        """Return the distance above which a file is flagged as adversarial.

        Args:
            false_positive_rate: Share of clean files that may be flagged, in (0, 1).

        Raises:
            CalibrationError: If there are too few clean files for this rate; the text says how many
                are needed.
        """
        return conformal_threshold(self.distances, false_positive_rate)

    def distance(self, measured: Measured) -> float:
        """Return the distance of a file from clean ones, ≥ 0."""
        return float(self.distances_of([measured.evidence])[0])

    def distances_of(self, evidence: ArrayLike) -> Array:
        """Return the distance of each row of (n, F + 1) evidence from clean files, (n,)."""
        return self.detector.distance(self.rates.transform(evidence))

    def farthest(self, measured: Measured) -> tuple[Noise, str, float]:
        """Return the entry of the evidence that deviates most from clean files.

        Returns:
            The noise, the name of what it changes (a layer or a change of the decision), and its
            signed deviation from the clean median in robust standard deviations.
        """
        deviations = self.detector.explain(self.rates.transform([measured.evidence])[0])
        worst = int(np.argmax(np.abs(deviations)))
        noise, what = evidence_names(self.config, head=self.names)[worst].split(" | ")
        (found,) = (n for n in self.config.noises if n.name == noise)
        return found, what, float(deviations[worst])

    def p_value(self, distance: float) -> float:
        """Return the conformal p-value of a distance, ≥ 1 / (n + 1).

        It is valid whatever the distribution of the distances is.
        """
        return conformal_p_value(self.distances, distance)

    def tail_p_value(self, distance: float) -> float:
        """Return a p-value that can fall below 1 / (n + 1), for comparing many files.

        Beyond the largest clean distances it comes from a fitted tail and is an extrapolation. With
        fewer than 200 clean files no tail is fitted, and this is the conformal p-value.
        """
        if self._tail is None or distance <= self._tail.limit:
            return self.p_value(distance)
        return self._tail.p_value(distance)

    @cached_property
    def _tail(self) -> TailFit | None:
        return fit_tail(self.distances) if len(self.distances) >= FILES_FOR_TAIL else None

    @property
    def inconsistent_share(self) -> float | None:
        """Share of clean recordings that would be called inconsistent; None if unknown."""
        if self.verification_threshold is None or len(self.consistencies) == 0:
            return None
        return float((self.consistencies < self.verification_threshold).mean())

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write the calibration to a file, whole or not at all; ``force`` overwrites."""
        save_state(path, _FORMATS[self.tag].write(self), force=force)

    @staticmethod
    def of(pretrained: PretrainedModel, given: Calibration | Path | None = None) -> Calibration:
        """Return the calibration given, loaded if it is a file, or the one that comes with a model.

        Raises:
            CalibrationError: If there is none, or it is for another model.
            StateError: If the file cannot be read or is for another model.
        """
        if not isinstance(given, Calibration):
            path = choose_calibration(pretrained, given)
            return Calibration.load(path, model_id=pretrained.model_id)
        if given.model_id != pretrained.model_id:
            raise CalibrationError(
                f"the calibration is for model {given.model_id[:12]}…, expected "
                f"{pretrained.model_id[:12]}… ({pretrained.card.name}); calibrate that one"
            )
        return given

    @staticmethod
    def load(path: Path, *, model_id: str) -> Calibration:
        """Read a calibration from a file.

        Raises:
            StateError: If it was made for another model or by an earlier version of nip-audio.
        """
        formats = {one.kind: one for one in _FORMATS.values()}
        state = load_state(path, kind=tuple(formats), model_id=model_id)
        found = formats[state.kind]
        if not found.needed <= state.meta.keys():
            raise StateError(
                f"{path} was made by an earlier version of nip-audio, expected one of this "
                "version; make it again: nip-audio calibrate CLEAN_DIR"
            )
        with reading_state(path):
            return found.read(state)


def choose_calibration(pretrained: PretrainedModel, path: Path | None) -> Path:
    """Return the given calibration file, or else the one that comes with the model.

    Raises:
        CalibrationError: If no file is given and none comes with the model.
    """
    chosen = path or pretrained.card.calibration_path
    if chosen is None:
        given = pretrained.card.name if pretrained.origin == "" else pretrained.origin
        raise CalibrationError(
            f"model {pretrained.card.name} comes without a calibration; make one with: nip-audio "
            f"calibrate CLEAN_DIR --model {given} --out my.calibration, and pass "
            "--calibration my.calibration (from Python, calibration='my.calibration')"
        )
    return chosen


def find_threshold(
    pretrained: PretrainedModel,
    calibration: Calibration | Path | None = None,
    asked: float | None = None,
    plda: Plda | None = None,
    *,
    options: str = "",
) -> float:
    """Return the verification threshold: the one given, else that of the PLDA or the calibration.

    Args:
        pretrained: Model that verifies.
        calibration: Calibration that may have a threshold; None takes that of the model.
        asked: Threshold given by the user; None if there is none.
        plda: Back end that scores instead of the cosine; None scores by the cosine.
        options: Text before the names of arguments in errors, such as ``--``.

    Raises:
        CalibrationError: If both a calibration and a PLDA are given, or if there is no threshold.
        InputError: If the threshold given is not finite.
    """
    if plda is not None and calibration is not None:
        raise CalibrationError(
            f"{options}calibration holds a cosine threshold, but {options}plda scores by "
            f"log-likelihood ratio; pass only one of {options}calibration and {options}plda"
        )
    if asked is not None:
        if not math.isfinite(asked):
            raise InputError(
                f"{options}threshold is {asked}, expected a finite number; pass, e.g., a cosine of "
                "0.4"
            )
        return asked
    if plda is not None:
        if plda.threshold is None:
            raise CalibrationError(
                f"the PLDA has no threshold; pass {options}threshold, or fit the PLDA with "
                "nip-audio fit-plda --calibrate"
            )
        return plda.threshold
    calibrated = Calibration.of(pretrained, calibration).verification_threshold
    if calibrated is None:
        raise CalibrationError(
            "the calibration has no threshold, because no speaker has two recordings in it; pass "
            f"{options}threshold"
        )
    return calibrated


def _write_recordings(calibration: Calibration) -> State:
    domain = calibration.domain
    if domain is None:
        raise InputError(
            "the calibration of recordings has no domain detector, expected one; make it with "
            "calibrate()"
        )
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
    return State(_FORMATS[calibration.tag].kind, calibration.model_id, tensors, meta)


def _read_recordings(state: State) -> Calibration:
    meta = state.meta
    config, names = NccrConfig.from_json(meta["nccr"]), bool(meta["names"])
    rates, detector, domain = (_part(state, name) for name in ("rates", "detector", "domain"))
    return Calibration(
        model_id=state.model_id,
        sample_rate_hz=int(meta["sample_rate_hz"]),
        names=names,
        config=config,
        rates=FittedRates.from_tensors(rates, signed=signed_entries(config, head=names)),
        detector=FittedDistance.from_tensors(detector, offset=meta["detector_offset"]),
        distances=state.tensors["distances"].numpy(),
        seen=tuple(meta["seen"]),
        sources=str(meta["sources"]),
        domain=FittedDistance.from_tensors(domain, offset=meta["domain_offset"]),
        domain_distances=state.tensors["domain_distances"].numpy(),
        consistencies=state.tensors["consistencies"].numpy(),
        verification_threshold=meta["verification_threshold"],
    )


def _write_images(calibration: Calibration) -> State:
    detector = calibration.detector
    if not isinstance(detector, FittedDensity):
        raise InputError(
            f"the detector is {detector!r}, expected CleanDensity for images; make the calibration "
            "with calibrate()"
        )
    meta = {
        "nccr": calibration.config.to_json(),
        "signed": calibration.rates.signed,
        "offset": detector.offset_,
        "neighbours": detector.neighbours,
        "scale": calibration.scale,
        "seen": list(calibration.seen),
        "sources": calibration.sources,
    }
    return State(_FORMATS[calibration.tag].kind, calibration.model_id, _fitted(calibration), meta)


def _read_images(state: State) -> Calibration:
    meta = state.meta
    return Calibration(
        model_id=state.model_id,
        sample_rate_hz=None,
        names=True,
        config=NccrConfig.from_json(meta["nccr"]),
        rates=FittedRates.from_tensors(_part(state, "rates"), signed=meta["signed"]),
        detector=FittedDensity.from_tensors(
            _part(state, "detector"), offset=meta["offset"], neighbours=meta["neighbours"]
        ),
        distances=state.tensors["distances"].numpy(),
        # the first calibrations of images, made of PNGs of the model's size, lack these values
        seen=tuple(meta.get("seen", ())),
        sources=str(meta.get("sources", "")),
        scale=float(meta.get("scale", 1.0)),
    )


def _fitted(calibration: Calibration) -> dict[str, torch.Tensor]:
    """Return the tensors that every calibration keeps: distances, rates and detector."""
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


@dataclass(frozen=True)
class _Format:
    """How the calibrations of one modality are written, and the settings that files must have."""

    kind: str
    write: Callable[[Calibration], State]
    read: Callable[[State], Calibration]
    needed: frozenset[str] = frozenset()


_FORMATS: Mapping[str, _Format] = {
    "audio": _Format(
        "calibration", _write_recordings, _read_recordings, needed=frozenset({"names"})
    ),
    "image": _Format("picture calibration", _write_images, _read_images),
}
