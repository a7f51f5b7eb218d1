"""Identify the speaker of a recording.

In a closed set, one of the speakers that a model was trained on. In an open set, one of the
enrolled speakers or none of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nip_audio.audio.windows import voice_of
from nip_audio.core.adapter import Batch
from nip_audio.core.finite import require_finite
from nip_audio.errors import InputError
from nip_audio.models.enrolment import Enrolment, ScoreKind, embed_audio
from nip_audio.models.plda import Plda
from nip_audio.models.pretrained import PretrainedModel

__all__ = [
    "Candidate",
    "EnrolledCandidate",
    "OpenSetResult",
    "identify",
    "identify_enrolled",
]


@dataclass(frozen=True)
class Candidate:
    """One known speaker, and how well a recording matches.

    Attributes:
        speaker: Name of the speaker.
        score: Output of the model's head: a logit or a cosine.
        posterior: Softmax over all known speakers, in [0, 1]. It does not tell whether the voice is
            that of a known speaker at all, because a closed set has no class for unknown speakers.
    """

    speaker: str
    score: float
    posterior: float

    def __post_init__(self) -> None:
        """Refuse numbers by which nothing can be decided.

        Raises:
            InputError: If a value is NaN or infinite.
        """
        require_finite(score=self.score, posterior=self.posterior)

    def to_json(self) -> dict[str, Any]:
        """Return rounded JSON values."""
        return {
            "speaker": self.speaker,
            "score": round(self.score, 6),
            "posterior": round(self.posterior, 6),
        }


@torch.no_grad()
def identify(pretrained: PretrainedModel, samples: Tensor, *, top: int = 3) -> list[Candidate]:
    """Rank the speakers that a model knows by how well a recording matches, or names of an image.

    Args:
        pretrained: Model with a closed set of speakers, or of what images show.
        samples: (N,) recording at the model's sample rate, in [-1, 1], of which silence is left out
            where there is much (``audio.windows.voice_of``); or an image as the model takes it.
        top: Number of candidates to return.

    Returns:
        Candidates, best first.

    Raises:
        InputError: If the model has no closed set of speakers, or ``top`` is below 1.
    """
    model = pretrained.model
    if model.head is None:
        raise InputError(
            f"{pretrained.card.name} only embeds and knows no speakers; enrol speakers with "
            "nip-audio "
            "enroll, then use nip-audio verify, or nip-audio identify --enrolment"
        )
    if top < 1:
        raise InputError(f"top is {top}, expected at least 1")
    if samples.dim() == 1:  # an image (C, H, W) holds no silence
        samples = voice_of(samples, pretrained.card.sample_rate_hz)
    scores = model.scores(Batch(samples[None]))[0]
    posteriors = model.logits(scores).softmax(dim=0)
    best = scores.argsort(descending=True)[:top].tolist()
    labels = pretrained.card.labels
    return [Candidate(labels[i], float(scores[i]), float(posteriors[i])) for i in best]


@dataclass(frozen=True)
class EnrolledCandidate:
    """One enrolled speaker, and how well a recording matches.

    Attributes:
        speaker: Name of the speaker.
        score: Cosine, or log-likelihood ratio of PLDA.
    """

    speaker: str
    score: float


@dataclass(frozen=True)
class OpenSetResult:
    """Outcome of an open-set identification.

    Attributes:
        candidates: Enrolled speakers, best first.
        threshold: Score from which the best candidate is accepted.
        kind: Kind of score, ``cosine`` or ``llr``.
        enrolled: Number of enrolled speakers.
    """

    candidates: tuple[EnrolledCandidate, ...]
    threshold: float
    kind: ScoreKind
    enrolled: int

    def __post_init__(self) -> None:
        """Refuse numbers by which nothing can be decided.

        Raises:
            InputError: If the threshold or a score is NaN or infinite.
        """
        require_finite(threshold=self.threshold)
        for one in self.candidates:
            require_finite(score=one.score)

    @property
    def speaker(self) -> str | None:
        """Name of the speaker; None if the recording is of none of the enrolled ones."""
        best = self.candidates[0]
        return best.speaker if best.score >= self.threshold else None

    def to_json(self) -> dict[str, Any]:
        """Return rounded JSON values; the scores are named after their kind."""
        return {
            "speaker": self.speaker,
            "threshold": round(self.threshold, 6),
            "candidates": [
                {"speaker": one.speaker, self.kind: round(one.score, 6)} for one in self.candidates
            ],
        }


@torch.no_grad()
def identify_enrolled(
    pretrained: PretrainedModel,
    samples: Tensor,
    enrolment: Enrolment,
    *,
    threshold: float,
    plda: Plda | None = None,
    top: int = 3,
) -> OpenSetResult:
    """Identify which enrolled speaker a recording is of, if any (open set).

    The recording is compared with every enrolled speaker, as ``verify`` does with one. With more
    speakers, a stranger is more likely to be accepted as one of them at the same threshold.

    Args:
        pretrained: Model that embeds the recording.
        samples: (N,) recording at the model's sample rate, in [-1, 1].
        enrolment: Enrolment made by the same model.
        threshold: Score from which a speaker is accepted.
        plda: PLDA back end for the same model; None scores by cosine.
        top: Number of candidates to return.

    Raises:
        InputError: If ``top`` is below 1.
    """
    if top < 1:
        raise InputError(f"top is {top}, expected at least 1")
    embedding = embed_audio(pretrained, samples)
    if plda is None:
        kind: ScoreKind = "cosine"
        scores = torch.nn.functional.normalize(enrolment.voices, dim=1) @ embedding
    else:
        kind = "llr"
        scores = plda.score(embedding[None], enrolment.embeddings)[0]
    best = scores.argsort(descending=True)[:top].tolist()
    candidates = (EnrolledCandidate(enrolment.speakers[i], float(scores[i])) for i in best)
    return OpenSetResult(tuple(candidates), threshold, kind, len(enrolment.speakers))
