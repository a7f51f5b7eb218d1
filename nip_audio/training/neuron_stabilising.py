"""SNS: hold still the neurons that adversarial perturbations move most."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from nip_audio.errors import InputError

__all__ = ["sensitivity", "stabilising_loss"]


def sensitivity(benign: Tensor, adversarial: Tensor) -> Tensor:
    """Mean of |A(x) − A(x')| over items and positions, by neuron (Zhang et al., arXiv 1909.06978).

    Args:
        benign: (B, N) or (B, N, *S) outputs of a layer.
        adversarial: The same of the adversarial versions of the same items.

    Returns:
        (N,).

    Example:
        >>> sensitivity(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 5.0]])).tolist()
        [0.0, 3.0]
    """
    difference: Tensor = (benign - adversarial).abs().transpose(0, 1).flatten(1).mean(dim=1)
    return difference


def stabilising_loss(pairs: Iterable[tuple[Tensor, Tensor]], *, share: float) -> Tensor:
    """Return how far the most sensitive neurons move, on average over neurons and layers.

    Sensitive neurons stabilising (SNS; Zhang et al., IEEE TIP 2021, arXiv 1909.06978): what its
    training adds to the loss, weighted.

    Deviation: the sensitive neurons are those of the batch at hand, chosen anew in every step,
    where the paper measures sensitivity on a data set; the mean over neurons and layers is taken,
    so that a weight means the same for networks of any width.

    Args:
        pairs: By layer: its outputs for benign items and for their adversarial versions.
        share: Of a layer's neurons that count as sensitive, in (0, 1]; at least one.

    Raises:
        InputError: If the share makes no sense, or there is no pair.
    """
    if not 0 < share <= 1:
        raise InputError(f"share is {share}, expected more than 0 and at most 1; 0.1 is usual")
    losses = []
    for benign, adversarial in pairs:
        moved = sensitivity(benign, adversarial)
        losses.append(moved.topk(max(1, round(share * len(moved)))).values.mean())
    if not losses:
        raise InputError("got no layers to hold still, expected one or more; name some")
    return torch.stack(losses).mean()
