"""What pictures networks take."""

from __future__ import annotations

from torch import Tensor

from nip_audio.errors import InputError


def require_pictures(x: Tensor, channels: int, size: int | None = None) -> None:
    """Refuse what is not (B, channels, size, size).

    Raises:
        InputError: Then.
    """
    right_size = size is None or tuple(x.shape[2:]) == (size, size)
    if x.dim() != 4 or x.shape[1] != channels or not right_size:
        side = "rows, columns" if size is None else f"{size}, {size}"
        raise InputError(f"input is {tuple(x.shape)}, expected (items, {channels}, {side})")
