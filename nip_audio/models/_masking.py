"""Keeping padding out of networks whose convolutions pad: a padded batch equals its single items.

A convolution that pads looks over the end of an item. Alone it finds zeros there; inside a padded
batch it would find what normalisation layers have made of the padding. So activations beyond an
item's length are set back to zero before every such convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nip_audio.core.adapter import length_mask, masked_mean
from nip_audio.errors import InputError


def halved(lengths: Tensor) -> Tensor:
    """Valid positions behind a stride of two with "same" padding: ⌈L / 2⌉."""
    return torch.div(lengths + 1, 2, rounding_mode="floor")


class Masks:
    """Zero what lies beyond each item's length, at any resolution of the time axis.

    Args:
        lengths: (B,) valid positions; None, or all of them, means that nothing is ever masked.
        size: Length T of the time axis.
    """

    def __init__(self, lengths: Tensor | None, size: int) -> None:
        """See the class."""
        padded = lengths is not None and int(lengths.min()) < size
        self.lengths = lengths if padded else None

    def __call__(self, x: Tensor) -> Tensor:
        """Mask (B, …, T) at the current resolution."""
        if self.lengths is None:
            return x
        mask = length_mask(self.lengths, x.shape[-1])
        return x * mask.reshape(x.shape[0], *[1] * (x.dim() - 2), -1)

    def halve(self) -> Masks:
        """Return the masks behind a stride of two."""
        if self.lengths is None:
            return self
        behind = Masks(None, 0)
        behind.lengths = halved(self.lengths)
        return behind


def remove_level(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Subtract each item's mean over all bands and valid frames: (B, F, T), so gain drops out."""
    level = masked_mean(x, lengths).mean(dim=1)[:, None, None]
    return Masks(lengths, x.shape[-1])(x - level)


def require_bands(x: Tensor, n_mels: int) -> None:
    """Refuse features of another front end: (B, F, T) with F other than ``n_mels``.

    Raises:
        InputError: If F is not ``n_mels``.
    """
    if x.shape[1] != n_mels:
        raise InputError(
            f"features have {x.shape[1]} bands, expected {n_mels}; give the front end and the "
            "network the same n_mels"
        )


def require_frames(x: Tensor, lengths: Tensor | None, fewest: int) -> None:
    """Refuse items that are too short for a network.

    Raises:
        InputError: If an item has fewer valid frames than ``fewest``.
    """
    shortest = x.shape[-1] if lengths is None else int(lengths.min())
    if shortest < fewest:
        raise InputError(
            f"an item has {shortest} frames, expected at least {fewest}; give longer audio"
        )
