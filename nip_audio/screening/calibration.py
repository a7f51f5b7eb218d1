"""Store what clean files look like to one model, and derive the detection thresholds from it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nip_audio.core.fingerprint import fingerprint
from nip_audio.core.finite import require_finite, require_finite_values
from nip_audio.core.nccr import NccrConfig
from nip_audio.core.state import State, load_state, reading_state, save_state
from nip_audio.detectors.fitted import FittedDensity, FittedDistance, FittedRates
from nip_audio.detectors.nccr_measure import signed_entries
from nip_audio.errors import CalibrationError, FileError, InputError, StateError
from nip_audio.models.log_ratios import LogRatios
from nip_audio.models.plda import Plda
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.models.threshold import VerificationThreshold
from nip_audio.screening.nccr_detector import NccrDetector
from nip_audio.screening.probes import NccrProbe, Place
from nip_audio.screening.response import ResponseDetector

__all__ = ["Calibration", "choose_calibration", "find_threshold"]


Array = NDArray[np.float64]

Detector = NccrDetector | ResponseDetector
"""Judges whether files are attacked."""

_ANYWHERE = Place()


@dataclass(frozen=True)
class Calibration:
    """Reference distribution of clean recordings, or clean images, for one model.

    Attributes:
        model_id: Identity of the model.
        sample_rate_hz: Sample rate of the model; None if it takes images.
        detector: Judges whether a file is attacked, and what is measured for that.
        seen: SHA-256 of the content of each file, so that test files that were seen are refused.
        sources: Description of the clean files in words.
        domain: Measures the distance of a spectrum from those of wide-band recordings; None for
            images.
        domain_distances: (n,) sorted out-of-fold distances of these spectra; empty for images.
        narrow_domain: The same for recordings of a telephone's band; None if none were seen.
        narrow_domain_distances: (n,) sorted out-of-fold distances of these spectra.
        consistencies: (m,) sorted consistency scores of speakers with three recordings or more.
        same_voice: Ratios of one voice to two for the mean cosine between the recordings of two
            speakers; None if there are too few, or an earlier version made the calibration.
        verification_threshold: Cosine similarity, at the equal error rate, from which two
            recordings count as one voice; None if no speaker has two recordings.
        scale: Smallest ``ImageFacts.scale`` of the clean images; 1 for recordings.
        failures: Files that were left out, and why.
        farthest: Names of the files farthest from the others, with their out-of-fold distances; the
            farthest first. They decide the threshold, so a person should listen to them. Not
            saved.
    """

    model_id: str
    sample_rate_hz: int | None
    detector: Detector
    seen: tuple[str, ...]
    sources: str
    domain: FittedDistance | None = None
    domain_distances: Array = field(default_factory=lambda: np.zeros(0))
    narrow_domain: FittedDistance | None = None
    narrow_domain_distances: Array = field(default_factory=lambda: np.zeros(0))
    consistencies: Array = field(default_factory=lambda: np.zeros(0))
    same_voice: LogRatios | None = None
    verification_threshold: float | None = None
    scale: float = 1.0
    failures: tuple[FileError, ...] = ()
    farthest: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        """Refuse numbers by which nothing can be decided.

        Raises:
            CalibrationError: If a value is NaN or infinite.
        """
        detector = self.detector
        if isinstance(detector, ResponseDetector):
            judged = detector.to_state(self.model_id).tensors
        else:
            judged = detector.to_tensors()
        arrays = {
            "distances of spectra": self.domain_distances,
            "narrow distances of spectra": self.narrow_domain_distances,
            "consistencies": self.consistencies,
            "verification threshold": np.array(self.verification_threshold or 0.0),
            "scale": np.array(self.scale),
        }
        for name, domain in (("domain", self.domain), ("narrow domain", self.narrow_domain)):
            tensors = {} if domain is None else domain.to_tensors()
            arrays |= {f"{name} {part}": tensor.numpy() for part, tensor in tensors.items()}
        require_finite_values({**judged, **arrays}, of="the calibration", error=CalibrationError)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that a verdict depends on."""
        if isinstance(self.detector, ResponseDetector):
            state = _FORMATS["response"].write(self)
            meta = {k: v for k, v in state.meta.items() if k not in ("sources", "seen")}
            return fingerprint([self.model_id, dict(state.tensors), meta])
        # in the words of the first calibrations, whose fingerprints stand in summaries of runs
        probe = self.detector.probe
        config = f"{probe.config}".removesuffix(")") + ", tolerance=None)"
        settings = f"{self.model_id}{config}{probe.names}{self.verification_threshold}"
        digest = hashlib.sha256(settings.encode())
        arrays = [self.detector.distances, self.domain_distances, self.consistencies]
        arrays += [] if self.same_voice is None else [np.array(_pair(self.same_voice))]
        fitted: list[FittedRates | FittedDistance | FittedDensity]
        fitted = [self.detector.rates, self.detector.estimator]
        for one in (*fitted, *([] if self.domain is None else [self.domain])):
            arrays += [tensor.numpy() for _, tensor in sorted(one.to_tensors().items())]
        for array in arrays:
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    @property
    def tag(self) -> str:
        """Name of the modality of the files that it judges."""
        return "image" if self.sample_rate_hz is None else "audio"

    @property
    def files(self) -> int:
        """Number of clean files, which limits the false-positive rate."""
        return self.detector.files

    @property
    def lowest_rate(self) -> float:
        """Lowest false-positive rate that so many files allow."""
        return 1 / (self.files + 1)

    @property
    def clean_only(self) -> NccrDetector:
        """Detector that has seen no attack.

        Raises:
            CalibrationError: If the calibration was made with attacks.
        """
        if not isinstance(self.detector, NccrDetector):
            raise CalibrationError(
                f"the calibration for model {self.model_id[:12]}… was made with attacks, expected "
                "a clean-only one; make it with: nip-audio calibrate --clean-only"
            )
        return self.detector

    def threshold(self, false_positive_rate: float, place: Place = _ANYWHERE) -> float:
        """Return the distance above which a file is flagged as adversarial.

        Args:
            false_positive_rate: Share of clean files that may be flagged, in (0, 1).
            place: With which clean files it is compared.

        Raises:
            CalibrationError: If there are too few clean files for this rate; the text says how many
                are needed.
        """
        return self.detector.threshold(false_positive_rate, place)

    @property
    def inconsistent_share(self) -> float | None:
        """Share of clean recordings that would be called inconsistent; None if unknown."""
        if self.verification_threshold is None or len(self.consistencies) == 0:
            return None
        return float((self.consistencies < self.verification_threshold).mean())

    def at(self, threshold: VerificationThreshold) -> Calibration:
        """Return this calibration with what was set on trials: when voices are one.

        Its ratios of one voice to two replace the calibration's, if the trials allowed any.

        Raises:
            InputError: If the threshold is not one of the cosine of single recordings' embeddings.
        """
        threshold.require_back_end(None)
        return replace(
            self,
            verification_threshold=threshold.value,
            same_voice=threshold.same_voice or self.same_voice,
        )

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write the calibration to a file, whole or not at all; ``force`` overwrites."""
        save_state(path, _FORMATS[_format_of(self)].write(self), force=force)

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
    fitted: VerificationThreshold | None = None,
    options: str = "",
) -> float:
    """Return the verification threshold: the one given, else that of the PLDA or the calibration.

    Args:
        pretrained: Model that verifies.
        calibration: Calibration that may have a threshold; None takes that of the model.
        asked: Threshold given by the user; None if there is none.
        plda: Back end that scores instead of the cosine; None scores by the cosine.
        fitted: Threshold that was set on trials, instead of any other.
        options: Text before the names of arguments in errors, such as ``--``.

    Raises:
        CalibrationError: If both a calibration and a PLDA are given, or if there is no threshold.
        InputError: If the threshold given is not finite, or one that was set on trials is given
            beside another or for another kind of score.
    """
    if fitted is not None:
        if asked is not None or calibration is not None:
            other = "threshold" if asked is not None else "calibration"
            raise InputError(
                f"got a threshold file and {options}{other}, expected one threshold; leave one out"
            )
        fitted.require_back_end(plda, options=options)
        return fitted.value
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
        require_finite(threshold=plda.threshold)
        return plda.threshold
    calibrated = Calibration.of(pretrained, calibration).verification_threshold
    if calibrated is None:
        raise CalibrationError(
            "the calibration has no threshold, because no speaker has two recordings in it; pass "
            f"{options}threshold"
        )
    return calibrated


def _format_of(calibration: Calibration) -> str:
    return "response" if isinstance(calibration.detector, ResponseDetector) else calibration.tag


def _reference_of(calibration: Calibration) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors and settings of what is known of clean recordings besides attacks."""
    domain = calibration.domain
    if domain is None:
        raise InputError(
            "the calibration of recordings has no domain detector, expected one; make it with "
            "calibrate()"
        )
    tensors = {
        "domain_distances": torch.from_numpy(calibration.domain_distances),
        "consistencies": torch.from_numpy(calibration.consistencies),
        **_named("domain", domain.to_tensors()),
    }
    meta: dict[str, Any] = {
        "sample_rate_hz": calibration.sample_rate_hz,
        "domain_offset": domain.offset_,
        "verification_threshold": calibration.verification_threshold,
        "seen": list(calibration.seen),
        "sources": calibration.sources,
    }
    if calibration.same_voice is not None:
        meta["same_voice"] = _pair(calibration.same_voice)
    return tensors, meta


def _pair(ratios: LogRatios) -> list[float]:
    return [ratios.slope, ratios.offset]


def _read_reference(state: State) -> dict[str, Any]:
    """Return the fields that ``_reference_of`` wrote."""
    meta = state.meta
    return {
        "sample_rate_hz": int(meta["sample_rate_hz"]),
        "seen": tuple(meta["seen"]),
        "sources": str(meta["sources"]),
        "domain": FittedDistance.from_tensors(_part(state, "domain"), offset=meta["domain_offset"]),
        "domain_distances": state.tensors["domain_distances"].numpy(),
        "consistencies": state.tensors["consistencies"].numpy(),
        "same_voice": LogRatios(*meta["same_voice"]) if "same_voice" in meta else None,
        "verification_threshold": meta["verification_threshold"],
    }


def _write_recordings(calibration: Calibration) -> State:
    detector = calibration.clean_only
    tensors, meta = _reference_of(calibration)
    meta |= {
        "names": detector.probe.names,
        "nccr": detector.probe.config.to_json(),
        "detector_offset": detector.estimator.offset_,
    }
    kind = _FORMATS["audio"].kind
    return State(kind, calibration.model_id, {**tensors, **detector.to_tensors()}, meta)


def _read_recordings(state: State) -> Calibration:
    meta = state.meta
    config, names = NccrConfig.from_json(meta["nccr"]), bool(meta["names"])
    rates, detector = (_part(state, name) for name in ("rates", "detector"))
    return Calibration(
        model_id=state.model_id,
        detector=NccrDetector(
            NccrProbe(config, names),
            FittedRates.from_tensors(rates, signed=signed_entries(config, head=names)),
            FittedDistance.from_tensors(detector, offset=meta["detector_offset"]),
            state.tensors["distances"].numpy(),
        ),
        **_read_reference(state),
    )


def _write_response(calibration: Calibration) -> State:
    if not isinstance(calibration.detector, ResponseDetector):
        raise InputError("the calibration has no detector of a response; make it with calibrate()")
    tensors, meta = _reference_of(calibration)
    inner = calibration.detector.to_state(calibration.model_id)
    tensors |= _named("response", inner.tensors)
    meta["response"] = dict(inner.meta)
    if calibration.narrow_domain is not None:
        tensors |= _named("narrow_domain", calibration.narrow_domain.to_tensors())
        tensors["narrow_domain_distances"] = torch.from_numpy(calibration.narrow_domain_distances)
        meta["narrow_domain_offset"] = calibration.narrow_domain.offset_
    return State(_FORMATS["response"].kind, calibration.model_id, tensors, meta)


def _read_response(state: State) -> Calibration:
    inner = State("response", state.model_id, _part(state, "response"), state.meta["response"])
    narrow: dict[str, Any] = {}
    if "narrow_domain_offset" in state.meta:
        narrow["narrow_domain"] = FittedDistance.from_tensors(
            _part(state, "narrow_domain"), offset=state.meta["narrow_domain_offset"]
        )
        narrow["narrow_domain_distances"] = state.tensors["narrow_domain_distances"].numpy()
    return Calibration(
        model_id=state.model_id,
        detector=ResponseDetector.from_state(inner),
        **_read_reference(state),
        **narrow,
    )


def _write_images(calibration: Calibration) -> State:
    detector = calibration.clean_only
    estimator = detector.estimator
    if not isinstance(estimator, FittedDensity):
        raise InputError(
            f"the estimator is {estimator!r}, expected CleanDensity for images; make the "
            "calibration with calibrate()"
        )
    meta = {
        "nccr": detector.probe.config.to_json(),
        "signed": detector.rates.signed,
        "offset": estimator.offset_,
        "neighbours": estimator.neighbours,
        "scale": calibration.scale,
        "seen": list(calibration.seen),
        "sources": calibration.sources,
    }
    return State(_FORMATS["image"].kind, calibration.model_id, detector.to_tensors(), meta)


def _read_images(state: State) -> Calibration:
    meta = state.meta
    return Calibration(
        model_id=state.model_id,
        sample_rate_hz=None,
        detector=NccrDetector(
            NccrProbe(NccrConfig.from_json(meta["nccr"]), names=True),
            FittedRates.from_tensors(_part(state, "rates"), signed=meta["signed"]),
            FittedDensity.from_tensors(
                _part(state, "detector"), offset=meta["offset"], neighbours=meta["neighbours"]
            ),
            state.tensors["distances"].numpy(),
        ),
        # the first calibrations of images, made of PNGs of the model's size, lack these values
        seen=tuple(meta.get("seen", ())),
        sources=str(meta.get("sources", "")),
        scale=float(meta.get("scale", 1.0)),
    )


def _named(part: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{part}.{name}": tensor for name, tensor in tensors.items()}


def _part(state: State, name: str) -> dict[str, torch.Tensor]:
    start = f"{name}."
    return {k.removeprefix(start): t for k, t in state.tensors.items() if k.startswith(start)}


@dataclass(frozen=True)
class _Format:
    """How the calibrations of one kind are written, and the settings that files must have."""

    kind: str
    write: Callable[[Calibration], State]
    read: Callable[[State], Calibration]
    needed: frozenset[str] = frozenset()


_FORMATS: Mapping[str, _Format] = {
    "audio": _Format(
        "calibration", _write_recordings, _read_recordings, needed=frozenset({"names"})
    ),
    "response": _Format("response calibration", _write_response, _read_response),
    "image": _Format("picture calibration", _write_images, _read_images),
}
