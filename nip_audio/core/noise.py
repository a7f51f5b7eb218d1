"""Draw and apply random perturbations: additive noise, masks and outlier removal.

Each works on raw input (a waveform, an image) or on model input (a spectrogram).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from nip_audio.core.adapter import Bounds
from nip_audio.errors import InputError

__all__ = ["Noise", "NoiseFamily", "apply_noise", "draw_noise"]

NoiseFamily = Literal["gaussian", "uniform", "mask", "outlier"]
NoiseLevel = Literal["raw", "input"]


@dataclass(frozen=True)
class Noise:
    """One kind of random perturbation.

    Attributes:
        family: ``gaussian`` adds normal noise, ``uniform`` adds uniform noise, ``mask`` sets
            square patches to the lower bound (with a patch of 1 single values, the l0 noise).
            ``outlier`` replaces each value that differs from the median of its neighbourhood by
            more than a limit with that median; the limit is drawn between 0.5 and 1.5 times the
            scale. It undoes large changes of a few values and keeps all others.
        level: ``raw`` perturbs raw input (a waveform), ``input`` perturbs model input (a
            spectrogram).
        scale: Standard deviation of ``gaussian``, largest magnitude of ``uniform`` and mean limit
            of ``outlier``, in units of the level; for ``mask`` the share of masked values, in
            (0, 1).
        patch: Side of a mask's patches, or of the neighbourhood of ``outlier``, in positions; for
            ``outlier`` an odd number.

    Raises:
        InputError: If a value is invalid.
    """

    family: NoiseFamily
    level: NoiseLevel
    scale: float
    patch: int = 4

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.family not in get_args(NoiseFamily) or self.level not in get_args(NoiseLevel):
            raise InputError(
                f"noise is {self.family!r} at level {self.level!r}, expected one of "
                f"{get_args(NoiseFamily)} at one of {get_args(NoiseLevel)}"
            )
        if not 0 < self.scale < math.inf or (self.masks and self.scale >= 1) or self.patch < 1:
            raise InputError(
                f"{self.family} noise has scale {self.scale} and patch {self.patch}, expected "
                "a finite scale > 0 (below 1 for a mask) and patch ≥ 1"
            )
        if (self.masks or self.family == "outlier") and self.level == "raw":
            raise InputError(
                f"{self.family} noise is at level 'raw', expected 'input'; use gaussian or uniform "
                "noise at 'raw'"
            )
        if self.family == "outlier" and (self.patch % 2 == 0 or self.patch < 3):
            raise InputError(
                f"patch of outlier noise is {self.patch}, expected an odd side of at least 3"
            )

    @property
    def masks(self) -> bool:
        """Whether the noise sets values to the lower bound instead of adding to them."""
        return self.family == "mask"

    @property
    def name(self) -> str:
        """Short name, e.g. ``gaussian@input 0.03``."""
        return f"{self.family}@{self.level} {self.scale:g}"


def draw_noise(noise: Noise, shape: tuple[int, ...], *, generator: torch.Generator) -> Tensor:
    """Draw random perturbations without applying them.

    Args:
        noise: Perturbation to draw.
        shape: Shape (draws, *S) of the result; a mask needs at least one axis in S.
        generator: Random generator on the CPU, so that every device gets the same noise.

    Returns:
        Tensor of ``shape``: standard normal values, uniform values in [-1, 1], or bool that is true
        where masked; for ``outlier`` one limit per draw, in units of the scale, in [0.5, 1.5].

    Raises:
        InputError: If the items have too few axes for the mask.
    """
    if noise.family == "outlier":
        limits = torch.rand((shape[0], *[1] * (len(shape) - 1)), generator=generator) + 0.5
        return limits.expand(shape)
    if noise.family == "gaussian":
        return torch.randn(shape, generator=generator)
    if noise.family == "uniform":
        return torch.rand(shape, generator=generator) * 2 - 1
    # whole patches on a grid with a random origin; for 1-D items a mask has one axis
    axes = [axis for axis in (len(shape) - 2, len(shape) - 1) if axis >= 1]
    if not axes:
        raise InputError(
            f"items are {shape[1:]}, mask noise needs an axis; use gaussian or uniform noise"
        )
    coarse = list(shape)
    for axis in axes:
        coarse[axis] = -(-shape[axis] // noise.patch) + 1
    mask = torch.rand(coarse, generator=generator) < noise.scale
    for axis in axes:
        offset = int(torch.randint(noise.patch, (1,), generator=generator))
        mask = mask.repeat_interleave(noise.patch, dim=axis).narrow(axis, offset, shape[axis])
    return mask


def apply_noise(noise: Noise, x: Tensor, drawn: Tensor, bounds: Bounds) -> Tensor:
    """Apply each draw to one item; additive noise is clipped to the bounds.

    Args:
        noise: Perturbation that was drawn.
        x: (1, *S) item.
        drawn: (draws, *S) result of ``draw_noise``.
        bounds: Range of values at the noise's level; a mask sets values to its lower end.

    Returns:
        (draws, *S) perturbed items.

    Raises:
        InputError: If the lower bound is infinite for a mask, or the item has fewer than two axes
            for ``outlier``.
    """
    drawn = drawn.to(x.device)
    if noise.family == "outlier":
        usual = _medians(x, noise.patch)
        return torch.where((x - usual).abs() > noise.scale * drawn.to(x.dtype), usual, x)
    if noise.masks:
        if not math.isfinite(bounds.low):
            raise InputError(
                f"lower bound is {bounds.low}, a mask needs a finite one; give the model "
                "input_bounds, or use gaussian or uniform noise"
            )
        return torch.where(drawn, torch.as_tensor(bounds.low, dtype=x.dtype, device=x.device), x)
    return bounds.clip(x + noise.scale * drawn.to(x.dtype))


def _medians(x: Tensor, side: int) -> Tensor:
    """Return the median of the square around each value of (1, *S, F, T); edges are repeated."""
    if x.dim() < 3:
        raise InputError(
            f"items are {tuple(x.shape[1:])}, outlier noise needs two axes; use gaussian noise"
        )
    rows, columns = x.shape[-2:]
    reach = side // 2
    planes = torch.nn.functional.pad(x.reshape(1, -1, rows, columns), [reach] * 4, mode="replicate")
    around = planes.unfold(2, side, 1).unfold(3, side, 1).flatten(4)
    return around.median(dim=-1).values.reshape(x.shape)
