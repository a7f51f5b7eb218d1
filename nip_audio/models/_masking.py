"""Mask padding inside networks, so that a padded batch gives the same result as its single items.

A convolution with padding reads beyond the end of an item. For a single item it finds zeros there;
in a padded batch it would find the padding as changed by normalisation layers. So activations
beyond an item's length are set to zero before every such convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nip_audio.core.adapter import length_mask, masked_mean
from nip_audio.errors import InputError


def halved(lengths: Tensor) -> Tensor:
    """Return the valid positions after a stride of two with "same" padding: ⌈L / 2⌉."""
    return torch.div(lengths + 1, 2, rounding_mode="floor")


class Masks:
    """Set activations beyond each item's length to zero, at any resolution of the time axis.

    Args:
        lengths: (B,) valid positions; None means all, so that nothing is masked.
        size: Length T of the time axis.
    """

    def __init__(self, lengths: Tensor | None, size: int) -> None:
        """Keep the lengths if any item has padding."""
        # an exported graph cannot look at values, so there all is masked
        padded = lengths is not None and (
            torch.compiler.is_exporting() or int(lengths.min()) < size
        )
        self.lengths = lengths if padded else None

    def __call__(self, x: Tensor) -> Tensor:
        """Return (B, …, T) with padding set to zero, at the current resolution."""
        if self.lengths is None:
            return x
        mask = length_mask(self.lengths, x.shape[-1])
        return x * mask.reshape(x.shape[0], *[1] * (x.dim() - 2), -1)

    def halve(self) -> Masks:
        """Return the masks for the resolution after a stride of two."""
        if self.lengths is None:
            return self
        behind = Masks(None, 0)
        behind.lengths = halved(self.lengths)
        return behind


def relative_lengths(lengths: Tensor | None, size: int) -> Tensor | None:
    """Return lengths (B,) as SpeechBrain's layers take them, relative to that of the time axis.

    A quarter of a position is missing, since a quotient slightly too large would count one more.
    """
    return None if lengths is None else (lengths - 0.25) / size


def remove_level(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Remove gain: subtract each item's mean over all bands and valid frames of (B, F, T)."""
    level = masked_mean(x, lengths).mean(dim=1)[:, None, None]
    return Masks(lengths, x.shape[-1])(x - level)


def require_bands(x: Tensor, n_mels: int) -> None:
    """Check that features (B, F, T) have the expected number of mel bands.

    Raises:
        InputError: If F is not ``n_mels``.
    """
    if x.shape[1] != n_mels:
        raise InputError(
            f"features have {x.shape[1]} bands, expected {n_mels}; use the same n_mels for the "
            "front "
            "end and the network"
        )


def require_frames(x: Tensor, lengths: Tensor | None, fewest: int) -> None:
    """Check that all items are long enough for a network.

    Raises:
        InputError: If an item has fewer valid frames than ``fewest``.
    """
    if lengths is not None and torch.compiler.is_exporting():
        return  # an exported graph cannot look at values
    shortest = x.shape[-1] if lengths is None else int(lengths.min())
    if shortest < fewest:
        raise InputError(
            f"an item has {shortest} frames, expected at least {fewest}; use longer audio"
        )
