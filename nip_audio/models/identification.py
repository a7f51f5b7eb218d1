"""Closed-set identification of recordings."""

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
    """One of the speakers a model knows, and how well a recording fits.

    Attributes:
        speaker: Name.
        score: What the model's head returns: a logit or a cosine.
        posterior: Share of a softmax over all its speakers. It says nothing about whether the voice
            is any of theirs: a closed set has no stranger.
    """

    speaker: str
    score: float
    posterior: float

    def to_json(self) -> dict[str, Any]:
        """Return rounded plain values."""
        return {
            "speaker": self.speaker,
            "score": round(self.score, 6),
            "posterior": round(self.posterior, 6),
        }


@torch.no_grad()
def identify(pretrained: PretrainedModel, samples: Tensor, *, top: int = 3) -> list[Candidate]:
    """Rank the speakers that a model knows.

    Args:
        pretrained: Model with a closed set of speakers.
        samples: (N,) one recording at the model's rate, in [-1, 1].
        top: How many to return.

    Returns:
        The best first.

    Raises:
        InputError: If the model knows no speakers, or ``top`` is under one.
    """
    model = pretrained.model
    if model.head is None:
        raise InputError(
            f"{pretrained.card.name} only embeds, it knows no speakers; enrol yours with nip-audio "
            "enroll, and use nip-audio verify"
        )
    if top < 1:
        raise InputError(f"top is {top}, expected at least 1")
    scores = model.scores(Batch(samples[None]))[0]
    posteriors = model.logits(scores).softmax(dim=0)
    best = scores.argsort(descending=True)[:top].tolist()
    labels = pretrained.card.labels
    return [Candidate(labels[i], float(scores[i]), float(posteriors[i])) for i in best]
