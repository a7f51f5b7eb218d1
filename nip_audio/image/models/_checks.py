"""Check the shape of images that enter a network."""

from __future__ import annotations

from torch import Tensor

from nip_audio.errors import InputError


def require_images(x: Tensor, channels: int, size: int | None = None) -> None:
    """Check that ``x`` is a batch of images of the expected shape.

    Args:
        x: (B, C, H, W) images.
        channels: Expected number C of channels.
        size: Expected height and width; None allows any.

    Raises:
        InputError: If the shape is another.
    """
    right_size = size is None or tuple(x.shape[2:]) == (size, size)
    if x.dim() != 4 or x.shape[1] != channels or not right_size:
        side = "rows, columns" if size is None else f"{size}, {size}"
        raise InputError(
            f"images are {tuple(x.shape)}, expected (items, {channels}, {side}); resize or "
            "convert them"
        )
