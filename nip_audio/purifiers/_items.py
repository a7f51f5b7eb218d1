"""Apply a change item by item, so that padding and neighbouring items have no influence."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch


def each_item(batch: Batch, change: Callable[..., Tensor], *along: Tensor) -> Batch:
    """Apply ``change`` to the valid part of every item; padding becomes zero.

    Args:
        batch: (B, *S) values.
        change: Function of (b, *S) values of one length, and of the matching parts of ``along``;
            returns a tensor of the same shape. It must treat items independently: a batch without
            padding is passed to it as a whole.
        along: Further tensors of shape (B, *S), cut to the same lengths.

    Returns:
        The changed batch, with the shape and lengths of the input.
    """
    size = batch.x.shape[-1]
    if batch.lengths is None or int(batch.lengths.min()) == size:
        return batch.with_x(change(batch.x, *along))
    rows = []
    for row, length in enumerate(batch.lengths.tolist()):
        item = change(*(t[row : row + 1, ..., :length] for t in (batch.x, *along)))
        rows.append(torch.nn.functional.pad(item, (0, size - length)))
    return batch.with_x(torch.cat(rows))
