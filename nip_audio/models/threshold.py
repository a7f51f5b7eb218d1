"""Keep a verification threshold that was set on trials, with all that was measured for it.

A threshold belongs to one model, one kind of score and one number of recordings a voice is enrolled
from. The file says all three, so that it is not used with others by mistake.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nip_audio.core.fingerprint import fingerprint
from nip_audio.core.finite import require_finite
from nip_audio.core.state import State, load_state, reading_state, save_state
from nip_audio.errors import InputError, StateError
from nip_audio.models.enrolment import ScoreKind, VerificationResult
from nip_audio.models.log_ratios import LogRatios
from nip_audio.models.operating_point import ErrorCurve
from nip_audio.models.plda import Plda

__all__ = ["VerificationThreshold", "back_end_of"]

_KIND = "threshold"
_TENSORS = ("thresholds", "far", "frr")


def back_end_of(plda: Plda | None) -> str | None:
    """Return the identity of what scores: None for the cosine, or a hash of a PLDA."""
    if plda is None:
        return None
    names = ("centre", "lda", "mean", "loading", "residual")
    return fingerprint([plda.model_id, *(getattr(plda, name) for name in names)])


@dataclass(frozen=True, eq=False)
class VerificationThreshold:
    """Threshold of one model, and what is known of it.

    Attributes:
        model_id: Identity of the model.
        value: Score from which a claim is accepted.
        kind: Kind of score, ``cosine`` or ``llr`` (of a PLDA).
        back_end: Identity of the PLDA (``back_end_of``); None for the cosine.
        enrolled_from: Recordings that a voice was enrolled from.
        ratios: Calibration of scores to log-likelihood ratios.
        same_voice: The same for the mean cosine between the recordings of two speakers; None if
            there were too few of them, or if a PLDA scores.
        curve: Error rates at other thresholds.
        seen: SHA-256 of the content of each recording, so that test files that were seen are known.
        sources: Description of the recordings in words.
        report: What was measured, as JSON values: those of ``OperatingPoint.to_json``, and
            ``warnings``.
    """

    model_id: str
    value: float
    kind: ScoreKind
    back_end: str | None
    enrolled_from: int
    ratios: LogRatios
    curve: ErrorCurve
    seen: tuple[str, ...]
    sources: str
    report: Mapping[str, Any]
    same_voice: LogRatios | None = None

    def __post_init__(self) -> None:
        """Refuse a number by which nothing can be decided.

        Raises:
            InputError: If the threshold is NaN or infinite.
        """
        require_finite(threshold=self.value)

    @staticmethod
    def of(given: VerificationThreshold | Path, *, model_id: str) -> VerificationThreshold:
        """Return the threshold given, loaded if it is a file.

        Raises:
            StateError: If it is for another model, or the file cannot be read.
        """
        if isinstance(given, Path):
            return VerificationThreshold.load(given, model_id=model_id)
        if given.model_id != model_id:
            raise StateError(
                f"the threshold was made for model {given.model_id[:12]}, this model is "
                f"{model_id[:12]}; make one for this model with nip-audio threshold"
            )
        return given

    def require_back_end(self, plda: Plda | None, *, options: str = "") -> None:
        """Refuse to decide scores of another kind than the threshold is for.

        Args:
            plda: Back end that scores; None is the cosine.
            options: Text before the names of arguments in the error, such as ``--``.

        Raises:
            InputError: If the threshold was set on scores of something else.
        """
        asked = back_end_of(plda)
        if asked == self.back_end:
            return
        made, used = (
            "the cosine" if one is None else f"the PLDA {one[:12]}"
            for one in (self.back_end, asked)
        )
        raise InputError(
            f"the threshold file was made for scores of {made}, but {used} scores; pass the same "
            f"{options}plda that it was made with, or none if it was the cosine"
        )

    def note(self, recordings: Collection[int]) -> str | None:
        """Return that voices are enrolled from more or fewer recordings than this was set for.

        Args:
            recordings: Number of recordings of each voice; at least one voice.

        Returns:
            The note, in words; None if they are enrolled from as many.
        """
        if set(recordings) == {self.enrolled_from}:
            return None
        found = " to ".join(str(n) for n in sorted({min(recordings), max(recordings)}))
        several = "s" if self.enrolled_from > 1 else ""
        return (
            f"the threshold was set for voices enrolled from {self.enrolled_from} "
            f"recording{several}, these are of {found}: scores of both true and false claims are "
            "higher with more; set one for as many (nip-audio threshold --enrol)"
        )

    def judge(self, score: float, *, prior: float | None = None) -> VerificationResult:
        """Return the decision on a score, its log-likelihood ratio and, with a prior, probability.

        Args:
            score: Score of the same kind.
            prior: Prior probability of a true claim; None for no probability.

        Raises:
            InputError: If the prior is outside (0, 1).
        """
        return VerificationResult(
            score,
            self.value,
            self.kind,
            float(self.ratios.of(np.array(score))),
            None if prior is None else self.ratios.probability(score, prior=prior),
        )

    def to_json(self) -> dict[str, Any]:
        """Return what the file says, as JSON values."""
        return {
            "model_id": self.model_id,
            "score": self.kind,
            "back_end": self.back_end,
            "enrolled_from": self.enrolled_from,
            "sources": self.sources,
            "recordings": len(self.seen),
            "same_voice_cosine": None
            if self.same_voice is None
            else -self.same_voice.offset / self.same_voice.slope,
            **self.report,
        }

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write the threshold to a file, whole or not at all; ``force`` overwrites.

        Raises:
            OutputError: If the file exists and ``force`` is false, or it cannot be written.
        """
        meta = {
            "value": self.value,
            "score": self.kind,
            "back_end": self.back_end,
            "enrolled_from": self.enrolled_from,
            "ratios": [self.ratios.slope, self.ratios.offset, self.ratios.prior],
            "same_voice": None
            if self.same_voice is None
            else [self.same_voice.slope, self.same_voice.offset],
            "seen": list(self.seen),
            "sources": self.sources,
            "report": dict(self.report),
        }
        tensors = {n: torch.from_numpy(getattr(self.curve, n).copy()) for n in _TENSORS}
        save_state(path, State(_KIND, self.model_id, tensors, meta), force=force)

    @staticmethod
    def load(path: Path, *, model_id: str) -> VerificationThreshold:
        """Read a threshold.

        Args:
            path: File that ``save`` wrote.
            model_id: Identity of the model to use it with.

        Raises:
            StateError: If the file is no threshold, or one for another model.
            HashMismatchError: If the file was changed after it was written.
        """
        state = load_state(path, kind=_KIND, model_id=model_id)
        with reading_state(path):
            meta = state.meta
            slope, offset, prior = map(float, meta["ratios"])
            voices = meta.get("same_voice")  # earlier versions wrote none
            kind: ScoreKind = "cosine" if meta["back_end"] is None else "llr"
            return VerificationThreshold(
                model_id,
                float(meta["value"]),
                kind,
                meta["back_end"],
                int(meta["enrolled_from"]),
                LogRatios(slope, offset, prior),
                ErrorCurve(*(state.tensors[name].numpy() for name in _TENSORS)),
                tuple(meta["seen"]),
                str(meta["sources"]),
                dict(meta["report"]),
                None if voices is None else LogRatios(*map(float, voices)),
            )
