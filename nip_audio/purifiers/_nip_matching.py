"""Template, similarity and the nearest candidate: integers and their cosines, on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor


def share_remaining(remaining: Tensor, *, neurons: int) -> Tensor:
    """In which share of the items each neuron is a remaining one: (t, R) indices → (N,) float64."""
    counts = torch.bincount(remaining.flatten().long(), minlength=neurons)
    return counts.double() / len(remaining)


def template_of(remaining: Tensor, *, neurons: int, quorum: float) -> Tensor:
    """T: neurons that are remaining ones in a quorum of benign items (NIP, Eq. 3 for 1).

    Args:
        remaining: (t, R) indices.
        neurons: N.
        quorum: Share of the items, in (0, 1].

    Returns:
        (M ≤ R,) indices, ascending. Were there more than R, the most often remaining stay, since T'
        has to be as long as an index vector; of equal ones those of lower index.
    """
    share = share_remaining(remaining, neurons=neurons)
    enough = int((share >= quorum - 1e-9).sum())  # a share is a rounded quotient
    often_first = share.argsort(descending=True, stable=True)
    return often_first[: min(enough, remaining.shape[1])].sort().values


def similarity(remaining: Tensor, template: Tensor) -> Tensor:
    """δ: cosine of index vectors and the zero-padded template (NIP, Eq. 4); 0 for an empty one.

    Indices count from 1: from 0 the first neuron would weigh nothing, and a template of it alone
    would have no direction.

    Args:
        remaining: (B, R) indices, by descending influence.
        template: (M ≤ R,) indices, ascending.

    Returns:
        (B,) float64.
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
    """Index of the nearest known value to each asked one, of equally near ones the lowest.

    Args:
        known: (t ≥ 1,) in any order.
        asked: (B,).

    Returns:
        (B,) indices into ``known``.
    """
    values, origin = known.sort(stable=True)
    above = torch.searchsorted(values, asked).clamp_max(len(values) - 1)
    # the first of equal values, which the stable sort has put there, is that of lowest index
    below = torch.searchsorted(values, values[(above - 1).clamp_min(0)])
    to_above, to_below = (values[above] - asked).abs(), (asked - values[below]).abs()
    lower = torch.minimum(origin[above], origin[below])
    by_distance = torch.where(to_above < to_below, origin[above], origin[below])
    return torch.where(to_above == to_below, lower, by_distance)
