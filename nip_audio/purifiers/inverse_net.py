"""The small encoder–decoder network that predicts an inverse perturbation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nip_audio.core.adapter import length_mask
from nip_audio.errors import InputError

__all__ = ["InverseNet"]

_STRIDE = 4  # both axes are padded to a multiple of this
_CENTRE, _SPREAD = 0.5, 4.0  # maps [0, 1] to ±2: without this training is far slower


class InverseNet(nn.Module):
    """Network that predicts the change to add to every value of an input.

    Two by two neighbours are folded into channels, so that no convolution runs at full resolution.
    A residual block, down-sampling, two residual blocks, up-sampling with a skip connection and
    another residual block follow, and the result is unfolded. In evaluation mode the result for an
    item does not depend on its padding or on the batch. Untrained, the network predicts no change.

    Args:
        channels: Number of input channels C; 1 for a spectrogram.
        width: Number of channels at half resolution; there are twice as many at a quarter.

    Raises:
        InputError: If ``channels`` or ``width`` is below 1.

    Example:
        >>> net = InverseNet(width=8).eval()
        >>> net(torch.rand(2, 1, 40, 33)).abs().max().item()
        0.0
    """

    def __init__(self, channels: int = 1, *, width: int = 24) -> None:
        super().__init__()
        if channels < 1 or width < 1:
            raise InputError(f"channels is {channels} and width {width}, expected at least 1 each")
        self.channels = channels
        self.width = width
        self.stem = nn.Conv2d(4 * channels, width, 3, padding=1)
        self.fine = _Residual(width)
        self.down = nn.Conv2d(width, 2 * width, 2, stride=2)
        self.coarse = nn.ModuleList([_Residual(2 * width), _Residual(2 * width)])
        self.up = nn.Conv2d(2 * width, 4 * width, 1)
        self.merge = _Residual(width)
        self.out_norm = nn.BatchNorm2d(width)
        self.out = nn.Conv2d(width, 4 * channels, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Predict the change of every value.

        Args:
            x: (B, C, F, T) input in [0, 1], zero beyond ``lengths``.
            lengths: (B,) number of valid positions of the last axis; None means all T.

        Returns:
            (B, C, F, T) changes, zero beyond ``lengths``.

        Raises:
            InputError: If the input has another number of channels.
        """
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise InputError(
                f"input has shape {tuple(x.shape)}, expected (items, {self.channels}, rows, "
                "columns); use a purifier that was trained for this model"
            )
        rows, columns = x.shape[2:]
        if lengths is None:
            lengths = torch.full((len(x),), columns, device=x.device)
        valid = _mask(lengths, columns, x)
        centred = _SPREAD * (x - _CENTRE) * valid
        padded = nn.functional.pad(centred, (0, -columns % _STRIDE, 0, -rows % _STRIDE))
        width = padded.shape[3]
        half, quarter = (_mask((lengths + n - 1) // n, width // n, x) for n in (2, 4))
        folded = nn.functional.pixel_unshuffle(padded, 2)
        # this memory format is a third faster on CPUs and gives the same values
        folded = folded.contiguous(memory_format=torch.channels_last)
        fine = self.fine(self.stem(folded), half)
        coarse = self.down(fine.relu() * half)
        for block in self.coarse:
            coarse = block(coarse, quarter)
        up = nn.functional.pixel_shuffle(self.up(coarse.relu()), 2)
        merged = self.out_norm(self.merge(fine + up, half)).relu() * half
        change: Tensor = nn.functional.pixel_shuffle(self.out(merged), 2)
        return change[..., :rows, :columns] * valid


class _Residual(nn.Module):
    """Residual block: batch normalisation, ReLU and a 3×3 convolution, twice."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm2d(width), nn.BatchNorm2d(width)])
        self.convs = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1) for _ in range(2)])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            y = conv(norm(y).relu() * mask)
        return x + y


def _mask(lengths: Tensor, size: int, like: Tensor) -> Tensor:
    return length_mask(lengths, size)[:, None, None, :].to(like.dtype)
