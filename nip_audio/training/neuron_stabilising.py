"""Sensitive neurons stabilising (SNS): penalise changes of neurons that attacks move most."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from nip_audio.errors import InputError

__all__ = ["sensitivity", "stabilising_loss"]


def sensitivity(benign: Tensor, adversarial: Tensor) -> Tensor:
    """Compute each neuron's mean |A(x) − A(x')| over items (Zhang et al., arXiv 1909.06978).

    Args:
        benign: (B, N) or (B, N, *S) outputs of a layer for benign items.
        adversarial: Outputs of the same shape for the adversarial versions of the items.

    Returns:
        (N,) mean change per neuron.

    Example:
        >>> sensitivity(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 5.0]])).tolist()
        [0.0, 3.0]
    """
    difference: Tensor = (benign - adversarial).abs().transpose(0, 1).flatten(1).mean(dim=1)
    return difference


def stabilising_loss(pairs: Iterable[tuple[Tensor, Tensor]], *, share: float) -> Tensor:
    """Return the mean change of the most sensitive neurons, over neurons and layers.

    Training with sensitive neurons stabilising (SNS; Zhang et al., IEEE TIP 2021, arXiv 1909.06978)
    adds this to the loss, times a weight.

    Deviation: the sensitive neurons are chosen anew from every batch, where the paper measures
    sensitivity on a data set. The loss is a mean over neurons and layers, so that a weight means
    the same for networks of any width.

    Args:
        pairs: Outputs of each layer for benign items and for their adversarial versions.
        share: Share of a layer's neurons that count as sensitive, in (0, 1]; at least one does.

    Raises:
        InputError: If the share is invalid, or there is no pair.
    """
    if not 0 < share <= 1:
        raise InputError(f"share is {share}, expected more than 0 and at most 1; 0.1 is usual")
    losses = []
    for benign, adversarial in pairs:
        moved = sensitivity(benign, adversarial)
        losses.append(moved.topk(max(1, round(share * len(moved)))).values.mean())
    if not losses:
        raise InputError("got no layers to stabilise, expected at least one; name layers")
    return torch.stack(losses).mean()
