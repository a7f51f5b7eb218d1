"""How noise changes a model's decision, in addition to how it changes its neurons.

NCCR (neuron coverage change rate) is a norm: it says how far outputs move, not in which direction.
Under noise an adversarial item moves back towards its true class, which signed changes of the
logits show. A model without a head compares embeddings by their cosine, so there we measure the
cosine distance between the clean and the noisy embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nip_audio.core.model import InstrumentedModel
from nip_audio.core.nccr import NccrConfig, NccrResult

__all__ = [
    "LOGIT_CHANGES",
    "EMBEDDING_DISTANCE",
    "logit_changes",
    "embedding_distances",
    "evidence_names",
    "evidence_vector",
]

LOGIT_CHANGES = ("logit drop", "runner-up logit rise", "margin left")
"""Names of the signed logit changes that are measured under each noise."""

EMBEDDING_DISTANCE = "cosine distance between embeddings"
"""Name of what is measured under each noise for a model without a head."""


def logit_changes(model: InstrumentedModel, result: NccrResult) -> Tensor:
    """Measure how noise changes the logits of an item.

    Args:
        model: Model whose head has at least two classes.
        result: NCCR measurement of the item.

    Returns:
        (noises, 3), averaged over the draws: the drop of the predicted class's logit, the rise of
        the best other class's logit, and the margin left between the two, which is negative where
        the decision changes.

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


def embedding_distances(result: NccrResult) -> Tensor:
    """Measure the cosine distance between the clean and the noisy embedding of an item.

    Args:
        result: NCCR measurement of the item.

    Returns:
        (noises,) 1 − cosine, in [0, 2], averaged over the draws.
    """
    clean = normalize(result.embedding, dim=-1)
    turns: Tensor = 1 - normalize(result.draw_embeddings, dim=-1) @ clean
    return turns.clamp_min(0).mean(dim=1)


def evidence_vector(model: InstrumentedModel, result: NccrResult) -> Tensor:
    """Return everything that a detector sees of an item, in the order of ``evidence_names``.

    Args:
        model: Model that was measured.
        result: NCCR measurement of the item.

    Returns:
        (F,): the NCCR vector (NCCR, Sec. 5), followed by the logit changes if the model has a head,
        or by the cosine distances between embeddings if it has none.
    """
    if model.head is None:
        return torch.cat([result.vector, embedding_distances(result)])
    return torch.cat([result.vector, logit_changes(model, result).flatten()])


def evidence_names(config: NccrConfig, *, head: bool) -> tuple[str, ...]:
    """Return the names of the entries of ``evidence_vector`` for a model with or without a head."""
    changes = LOGIT_CHANGES if head else (EMBEDDING_DISTANCE,)
    return (*config.names, *(f"{n.name} | {change}" for n in config.noises for change in changes))
