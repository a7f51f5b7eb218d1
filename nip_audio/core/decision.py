"""What noise does to a decision, beside what it does to neurons.

A relative change of the scores says how far they move, not where to: an adversarial item falls back
towards the class that it came from, which a signed change shows and a norm does not. Where items
are compared by the angle between their embeddings, how far noise turns an embedding is what a
decision hangs on.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nip_audio.core.model import InstrumentedModel
from nip_audio.core.nccr import NccrConfig, NccrResult

__all__ = [
    "DECISION",
    "TURN",
    "decision_changes",
    "embedding_turns",
    "evidence_names",
    "evidence_vector",
]

DECISION = ("fall of the named", "rise of the next", "lead kept")
"""Signed changes of the logits, by noise."""

TURN = "turn of the embedding"
"""Of a model without a head, by noise."""


def decision_changes(model: InstrumentedModel, result: NccrResult) -> Tensor:
    """Follow the class that the undisturbed item is named through the noise.

    Args:
        model: With a head of two classes or more.
        result: Of the item.

    Returns:
        (noises, 3), means over the draws: how much the logit of the named class falls, how much
        that of the best other class rises, and the difference that is left between them, negative
        where the decision changes.

    Raises:
        InputError: If the model has no head.
    """
    clean = model.logits(model.score_embeddings(result.embedding[None]))[0]
    named = int(clean.argmax())
    noisy = model.logits(model.score_embeddings(result.draw_embeddings.flatten(0, 1)))
    mean = noisy.reshape(*result.draw_embeddings.shape[:2], -1).mean(dim=1)
    others = torch.arange(len(clean), device=clean.device) != named
    best = mean[:, others].amax(dim=1)
    return torch.stack(
        [clean[named] - mean[:, named], best - clean[others].max(), mean[:, named] - best], dim=1
    )


def embedding_turns(result: NccrResult) -> Tensor:
    """How far noise turns the embedding of an item: 1 − cosine, mean over the draws, (noises,)."""
    clean = normalize(result.embedding, dim=-1)
    turns: Tensor = 1 - normalize(result.draw_embeddings, dim=-1) @ clean
    return turns.clamp_min(0).mean(dim=1)


def evidence_vector(model: InstrumentedModel, result: NccrResult) -> Tensor:
    """Everything a detector is told of an item, in the order of ``evidence_names``.

    Returns:
        (F,): the NCCR vector (NCCR, Sec. 5) and, of a model with a head, the changes of the
        decision; of one without, the turns of the embedding.
    """
    if model.head is None:
        return torch.cat([result.vector, embedding_turns(result)])
    return torch.cat([result.vector, decision_changes(model, result).flatten()])


def evidence_names(config: NccrConfig, *, head: bool) -> tuple[str, ...]:
    """Names of the entries of ``evidence_vector``, for a model with a head or without."""
    changes = DECISION if head else (TURN,)
    return (*config.names, *(f"{n.name} | {change}" for n in config.noises for change in changes))
