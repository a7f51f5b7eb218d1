"""Identify the speaker of a recording among those that a model knows (closed set)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch
from nip_audio.errors import InputError
from nip_audio.models.pretrained import PretrainedModel

__all__ = ["Candidate", "identify"]


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

    def to_json(self) -> dict[str, Any]:
        """Return rounded JSON values."""
        return {
            "speaker": self.speaker,
            "score": round(self.score, 6),
            "posterior": round(self.posterior, 6),
        }


@torch.no_grad()
def identify(pretrained: PretrainedModel, samples: Tensor, *, top: int = 3) -> list[Candidate]:
    """Rank the speakers that a model knows by how well a recording matches.

    Args:
        pretrained: Model with a closed set of speakers.
        samples: (N,) recording at the model's sample rate, in [-1, 1].
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
            "enroll, then use nip-audio verify"
        )
    if top < 1:
        raise InputError(f"top is {top}, expected at least 1")
    scores = model.scores(Batch(samples[None]))[0]
    posteriors = model.logits(scores).softmax(dim=0)
    best = scores.argsort(descending=True)[:top].tolist()
    labels = pretrained.card.labels
    return [Candidate(labels[i], float(scores[i]), float(posteriors[i])) for i in best]
