"""The triplet loss that Deep Speaker is trained with after its softmax (Li et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["triplet_loss"]


def triplet_loss(embeddings: Tensor, labels: Tensor, *, margin: float) -> Tensor:
    """Return how far the hardest triplets of a batch are from being told apart by ``margin``.

    Each item is an anchor. Its positive is the least similar item of the same label, its negative
    the most similar one of another label, in cosine similarity (Li et al. 2017, Sec. 2.3; hardest
    within the batch, Hermans et al. 2017).

    Args:
        embeddings: (B, D) embeddings.
        labels: (B,) labels.
        margin: By how much the similarity to the positive shall exceed that to the negative.

    Returns:
        The mean over the anchors that have both, at least 0; 0 where there is none.
    """
    unit = torch.nn.functional.normalize(embeddings, dim=1)
    similarity = unit @ unit.T
    same = labels[:, None] == labels[None]
    other = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positive = similarity.masked_fill(~(same & other), torch.inf).amin(dim=1)
    negative = similarity.masked_fill(same, -torch.inf).amax(dim=1)
    loss = (negative - positive + margin).clamp_min(0)
    complete = positive.isfinite() & negative.isfinite()
    return loss[complete].sum() / complete.sum().clamp_min(1)
