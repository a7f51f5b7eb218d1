"""Items one by one, so that none of them feels its padding or its neighbours."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch


def each_item(batch: Batch, change: Callable[..., Tensor], *along: Tensor) -> Batch:
    """Change items that end where their lengths say; padding becomes zero.

    Args:
        batch: (B, *S) values.
        change: Takes (b, *S) values of one length, and the same parts of ``along``; returns as
            many values. It must treat items independently: without padding it gets all at once.
        along: More tensors of shape (B, *S).
    """
    size = batch.x.shape[-1]
    if batch.lengths is None or int(batch.lengths.min()) == size:
        return batch.with_x(change(batch.x, *along))
    rows = []
    for row, length in enumerate(batch.lengths.tolist()):
        item = change(*(t[row : row + 1, ..., :length] for t in (batch.x, *along)))
        rows.append(torch.nn.functional.pad(item, (0, size - length)))
    return batch.with_x(torch.cat(rows))
