"""What the core knows about a modality: value bounds, padded batches and files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from nip_audio.errors import FileError, InputError

__all__ = ["Batch", "Bounds", "SourceFile", "length_mask", "masked_mean"]


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """Return which positions of a padded axis are valid.

    Args:
        lengths: (B,) integer number of valid positions.
        size: Length T of the padded axis.

    Returns:
        (B, T) bool.
    """
    return torch.arange(size, device=lengths.device)[None, :] < lengths[:, None]


def masked_mean(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Average over the valid positions of all axes after the second.

    Args:
        x: (B, C, *S), or (B, C) if ``lengths`` is None; the last axis is the padded one.
        lengths: (B,) number of valid positions on the last axis, at least 1; None means all.

    Returns:
        (B, C).
    """
    if lengths is None:
        return x.flatten(2).mean(dim=2) if x.dim() > 2 else x
    rows = x.flatten(2, -2).sum(dim=2) if x.dim() > 3 else x
    # a product with the mask, not a masked copy: maps are by far the largest tensors here
    mask = length_mask(lengths, x.shape[-1]).to(x.dtype)
    return (rows @ mask[:, :, None])[:, :, 0] / (lengths[:, None] * x.shape[2:-1].numel())


@dataclass(frozen=True)
class Bounds:
    """Closed range [low, high] of valid input values.

    Attributes:
        low: Smallest valid value.
        high: Largest valid value.

    Raises:
        InputError: If the range is empty.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        """Refuse an empty range."""
        if not self.low < self.high:
            raise InputError(f"bounds are ({self.low}, {self.high}), expected low < high")

    @staticmethod
    def of(given: Bounds | Sequence[float]) -> Bounds:
        """Return bounds that were given as such, or as a pair ``(low, high)``.

        Raises:
            InputError: If it is neither.

        Example:
            >>> Bounds.of((-1.0, 1.0))
            Bounds(low=-1.0, high=1.0)
        """
        if isinstance(given, Bounds):
            return given
        try:
            low, high = (float(value) for value in given)
        except (TypeError, ValueError) as err:
            raise InputError(
                f"bounds are {given!r}, expected Bounds(low, high) or a pair of numbers"
            ) from err
        return Bounds(low, high)

    def clip(self, x: Tensor) -> Tensor:
        """Return ``x`` clipped to the range."""
        return x.clamp(self.low, self.high)


@dataclass(frozen=True)
class Batch:
    """Several items of one modality, padded at the end of the last axis.

    Attributes:
        x: (B, *S) floating values, inside the adapter's bounds.
        lengths: (B,) integers, the number of valid positions on the last axis; None means all.

    Raises:
        InputError: If the parts do not fit together.
    """

    x: Tensor
    lengths: Tensor | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        if not self.x.is_floating_point() or self.x.dim() < 2 or self.x.shape[0] == 0:
            raise InputError(
                f"batch is {tuple(self.x.shape)} of {self.x.dtype}, expected floating values of "
                "shape (items ≥ 1, …)"
            )
        if self.lengths is not None:
            if self.lengths.shape != (len(self),) or self.lengths.is_floating_point():
                raise InputError(
                    f"lengths are {tuple(self.lengths.shape)} of {self.lengths.dtype}, expected "
                    f"({len(self)},) integers"
                )
            if int(self.lengths.min()) < 1 or int(self.lengths.max()) > self.x.shape[-1]:
                raise InputError(
                    f"lengths range {int(self.lengths.min())}–{int(self.lengths.max())}, expected "
                    f"1–{self.x.shape[-1]}"
                )

    def __len__(self) -> int:
        """Return the number of items."""
        return self.x.shape[0]

    def with_x(self, x: Tensor) -> Batch:
        """Return a batch with the same lengths and with the values ``x``."""
        return Batch(x, self.lengths)

    def masked(self) -> Tensor:
        """Return ``x`` with padding set to zero."""
        if self.lengths is None:
            return self.x
        mask = length_mask(self.lengths, self.x.shape[-1])
        return self.x * mask.reshape(len(self), *[1] * (self.x.dim() - 2), -1)

    def item(self, index: int) -> Batch:
        """Return one item without its padding, as a batch of one."""
        x = self.x[index : index + 1]
        if self.lengths is not None:
            x = x[..., : int(self.lengths[index])]
        return Batch(x)

    @staticmethod
    def collate(items: list[Tensor]) -> Batch:
        """Pad tensors with zeros into one batch.

        Args:
            items: Tensors (*S) that differ in the size of their last axis only.

        Raises:
            InputError: If there are no items.
        """
        if not items:
            raise InputError("got no items, expected at least one; pass the items to pad")
        lengths = torch.tensor([i.shape[-1] for i in items], device=items[0].device)
        x = items[0].new_zeros(len(items), *items[0].shape[:-1], int(lengths.max()))
        for row, item in zip(x, items, strict=True):
            row[..., : item.shape[-1]] = item
        return Batch(x, lengths)


class SourceFile(Protocol):
    """One file to read: where it is, and whether it may be read."""

    @property
    def path(self) -> Path | str:
        """Path or URL of the file."""

    def check(self, error: type[FileError]) -> None:
        """Raise this error if the file must not be read, whatever it holds."""
