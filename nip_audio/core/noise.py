"""Random perturbations: additive noise, masks and smoothing, of raw input or of the model's own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from nip_audio.core.adapter import Bounds
from nip_audio.errors import InputError

__all__ = ["Noise", "NoiseFamily", "apply_noise", "draw_noise"]

NoiseFamily = Literal["gaussian", "uniform", "mask", "time", "frequency", "outlier"]
NoiseLevel = Literal["raw", "input"]

_MASKED_AXES: dict[NoiseFamily, tuple[int, ...]] = {
    "mask": (-2, -1),
    "time": (-1,),
    "frequency": (-2,),
}


@dataclass(frozen=True)
class Noise:
    """One kind of random perturbation.

    Attributes:
        family: ``gaussian`` (scale = standard deviation), ``uniform`` (scale = largest magnitude),
            or a mask, whose scale is the share that is set to the lower bound: of square patches
            (``mask``; single values with a patch of 1, the l0 noise), of stretches of the last
            axis (``time``) or of the one before it (``frequency``). ``outlier`` puts the median of
            its neighbourhood in the place of each value that stands out from it by more than a
            limit, which is drawn from half the scale to one and a half: it takes few values that
            were changed much away again, and leaves the rest alone.
        level: ``raw`` disturbs raw input (a waveform), ``input`` the model's own (a spectrogram).
        scale: In units of that level; a share in (0, 1) for masks.
        patch: Side of a mask's patches, or length of its stretches, in positions; of the
            neighbourhood of outliers, for which it must be odd.

    Raises:
        InputError: If a value makes no sense.
    """

    family: NoiseFamily
    level: NoiseLevel
    scale: float
    patch: int = 4

    def __post_init__(self) -> None:
        """Check."""
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
                "masks and outlier noise are for level 'input'; use gaussian or uniform noise at "
                "'raw'"
            )
        if self.family == "outlier" and (self.patch % 2 == 0 or self.patch < 3):
            raise InputError(
                f"patch of outlier noise is {self.patch}, expected an odd side of at least 3"
            )

    @property
    def masks(self) -> bool:
        """Whether values are set to the lower bound, rather than added to."""
        return self.family in _MASKED_AXES

    @property
    def name(self) -> str:
        """Short name, e.g. ``gaussian@input 0.03``."""
        return f"{self.family}@{self.level} {self.scale:g}"


def draw_noise(noise: Noise, shape: tuple[int, ...], *, generator: torch.Generator) -> Tensor:
    """Draw, without applying.

    Args:
        noise: What to draw.
        shape: (draws, *S); a mask needs at least one axis in S.
        generator: Source of randomness, on the CPU so that every device gets the same noise.

    Returns:
        ``shape``: standard normal, uniform in [-1, 1], or bool that is true where masked; of
        outliers the limit in units of the scale, one for each draw, in [0.5, 1.5].
    """
    if noise.family == "outlier":
        limits = torch.rand((shape[0], *[1] * (len(shape) - 1)), generator=generator) + 0.5
        return limits.expand(shape)
    if noise.family == "gaussian":
        return torch.randn(shape, generator=generator)
    if noise.family == "uniform":
        return torch.rand(shape, generator=generator) * 2 - 1
    # whole patches on a grid whose origin is random; a mask of 1-D items has one axis
    axes = [len(shape) + axis for axis in _MASKED_AXES[noise.family]]
    axes = [axis for axis in axes if axis >= 1]
    if not axes:
        raise InputError(
            f"{noise.family} noise needs items with {-min(_MASKED_AXES[noise.family])} axes, got "
            f"{shape[1:]}"
        )
    coarse = [shape[0]] + [1] * (len(shape) - 1)
    if noise.family == "mask":
        coarse = list(shape)
    for axis in axes:
        coarse[axis] = -(-shape[axis] // noise.patch) + 1
    mask = torch.rand(coarse, generator=generator) < noise.scale
    for axis in axes:
        offset = int(torch.randint(noise.patch, (1,), generator=generator))
        mask = mask.repeat_interleave(noise.patch, dim=axis).narrow(axis, offset, shape[axis])
    return mask.expand(shape)


def apply_noise(noise: Noise, x: Tensor, drawn: Tensor, bounds: Bounds) -> Tensor:
    """Disturb one item by each draw; the result keeps to the bounds.

    Args:
        noise: What was drawn.
        x: (1, *S) item.
        drawn: (draws, *S) from ``draw_noise``.
        bounds: Of the noise's level; a mask sets to the lower one.

    Returns:
        (draws, *S).

    Raises:
        InputError: If a mask has no lower bound to set to, or outliers have no two axes to be
            looked for on.
    """
    drawn = drawn.to(x.device)
    if noise.family == "outlier":
        usual = _medians(x, noise.patch)
        return torch.where((x - usual).abs() > noise.scale * drawn.to(x.dtype), usual, x)
    if noise.masks:
        if not math.isfinite(bounds.low):
            raise InputError(
                f"the lower bound is {bounds.low}, a mask needs a finite one; give the model "
                "input_bounds, or use gaussian or uniform noise"
            )
        return torch.where(drawn, torch.as_tensor(bounds.low, dtype=x.dtype, device=x.device), x)
    return bounds.clip(x + noise.scale * drawn.to(x.dtype))


def _medians(x: Tensor, side: int) -> Tensor:
    """Median of the square around each value of (1, *S, F, T), which ends at the edges."""
    if x.dim() < 3:
        raise InputError(
            f"outlier noise needs items with two axes, got {tuple(x.shape[1:])}; use gaussian noise"
        )
    rows, columns = x.shape[-2:]
    reach = side // 2
    planes = torch.nn.functional.pad(x.reshape(1, -1, rows, columns), [reach] * 4, mode="replicate")
    around = planes.unfold(2, side, 1).unfold(3, side, 1).flatten(4)
    return around.median(dim=-1).values.reshape(x.shape)
