"""Template, similarity and choice of a candidate in neuron-level inverse perturbation (NIP).

All operations are on neuron indices and their cosines, and run on the CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor


def share_remaining(remaining: Tensor, *, neurons: int) -> Tensor:
    """Return the share of items in which each neuron is a remaining one.

    Args:
        remaining: (t, R) indices of the remaining neurons of t items.
        neurons: Number of neurons N of the layer.

    Returns:
        (N,) float64 shares in [0, 1].
    """
    counts = torch.bincount(remaining.flatten().long(), minlength=neurons)
    return counts.double() / len(remaining)


def template_of(remaining: Tensor, *, neurons: int, quorum: float) -> Tensor:
    """Return the template T: neurons that remain in a quorum of benign items (NIP, Eq. 3).

    A quorum of 1 is the paper's plain intersection.

    Args:
        remaining: (t, R) indices of the remaining neurons of t items.
        neurons: Number of neurons N of the layer.
        quorum: Least share of the items in which a neuron must remain, in (0, 1].

    Returns:
        (M ≤ R,) indices, ascending. If more than R neurons reach the quorum, those that remain most
        often are kept, since T' must be as long as an index vector; ties go to the lower index.
    """
    share = share_remaining(remaining, neurons=neurons)
    enough = int((share >= quorum - 1e-9).sum())  # a share is a rounded quotient
    often_first = share.argsort(descending=True, stable=True)
    return often_first[: min(enough, remaining.shape[1])].sort().values


def similarity(remaining: Tensor, template: Tensor) -> Tensor:
    """Return δ, the cosine of index vectors and the zero-padded template (NIP, Eq. 4).

    Indices are counted from 1: counted from 0, the first neuron would have no weight, and a
    template of it alone would have no direction.

    Args:
        remaining: (B, R) indices of the remaining neurons, by descending influence.
        template: (M ≤ R,) indices of the template, ascending.

    Returns:
        (B,) float64 cosines; 0 if the template is empty.
    """
    padded = torch.zeros(remaining.shape[1], dtype=torch.float64)
    padded[: len(template)] = template.double() + 1
    vectors = remaining.double() + 1
    length = padded.norm()
    if length == 0:
        return torch.zeros(len(remaining), dtype=torch.float64)
    # sums row by row: a matrix product rounds differently in batches of other sizes
    cosine: Tensor = (vectors * padded).sum(dim=1) / (vectors.norm(dim=1) * length)
    return cosine


def nearest(known: Tensor, asked: Tensor) -> Tensor:
    """Return the index of the nearest known value for each query; ties go to the lowest index.

    Args:
        known: (t ≥ 1,) values in any order.
        asked: (B,) queries.

    Returns:
        (B,) indices into ``known``.
    """
    values, origin = known.sort(stable=True)
    above = torch.searchsorted(values, asked).clamp_max(len(values) - 1)
    # the sort is stable: the first of equal values has the lowest index
    below = torch.searchsorted(values, values[(above - 1).clamp_min(0)])
    to_above, to_below = (values[above] - asked).abs(), (asked - values[below]).abs()
    lower = torch.minimum(origin[above], origin[below])
    by_distance = torch.where(to_above < to_below, origin[above], origin[below])
    return torch.where(to_above == to_below, lower, by_distance)
