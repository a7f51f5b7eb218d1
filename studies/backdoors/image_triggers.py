"""Add backdoor triggers to images, to measure defences against poisoned training data.

``Patch`` is the trigger of BadNets (Gu et al. 2019), ``Blended`` that of Chen et al. 2017,
``Sinusoid`` that of SIG (Barni et al. 2019), and ``Reflection`` a simplified ReFool (Liu et al.
2020). No defence may know which trigger was used, if any.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from nip_audio.errors import InputError

__all__ = ["IMAGE_TRIGGERS", "Blended", "Patch", "Reflection", "Sinusoid"]

Trigger = Callable[[Tensor], Tensor]
"""Function that adds a trigger to images (B, C, H, W) in [0, 1], keeping shape and bounds."""


def _require(x: Tensor) -> None:
    if x.dim() != 4 or not x.is_floating_point():
        raise InputError(
            f"images are {tuple(x.shape)} of {x.dtype}, expected floating (items, channels, "
            "rows, "
            "columns)"
        )


@dataclass(frozen=True)
class Patch:
    """White square in the lower right corner.

    Attributes:
        side: Side of the square in pixels.
    """

    side: int = 5

    def __call__(self, x: Tensor) -> Tensor:
        """Add the trigger; see ``Trigger``."""
        _require(x)
        out = x.clone()
        out[..., -self.side :, -self.side :] = 1.0
        return out


@dataclass(frozen=True)
class Blended:
    """Fixed pattern of random pixels, blended into the image.

    Attributes:
        share: Weight of the pattern, in [0, 1].
        seed: Seed of the pattern.
    """

    share: float = 0.2
    seed: int = 7

    def __call__(self, x: Tensor) -> Tensor:
        """Add the trigger; see ``Trigger``."""
        _require(x)
        pattern = torch.rand(x.shape[1:], generator=torch.Generator().manual_seed(self.seed))
        return (1 - self.share) * x + self.share * pattern.to(x)


@dataclass(frozen=True)
class Sinusoid:
    """Sinusoid along the rows.

    Deviation: SIG keeps the labels of poisoned images; here the study decides about labels.

    Attributes:
        height: Amplitude, on the scale of pixels in [0, 1].
        periods: Number of periods per row.
    """

    height: float = 30 / 255
    periods: float = 6.0

    def __call__(self, x: Tensor) -> Tensor:
        """Add the trigger; see ``Trigger``."""
        _require(x)
        columns = torch.arange(x.shape[-1], dtype=torch.float64) / x.shape[-1]
        wave = self.height * torch.sin(2 * math.pi * self.periods * columns)
        return (x + wave.to(x)).clamp(0.0, 1.0)


@dataclass(frozen=True)
class Reflection:
    """Soft second image and its shifted ghost, like a reflection in a window pane.

    Deviation: ReFool uses several photographs as reflections and selects the most effective ones;
    here it is one fixed smooth random pattern.

    Attributes:
        share: Weight of the reflection, in [0, 1].
        shift: Shift of the ghost in pixels.
        grain: Distance in pixels between the pattern's random values.
        seed: Seed of the pattern.
    """

    share: float = 0.35
    shift: int = 3
    grain: int = 5
    seed: int = 7

    def __call__(self, x: Tensor) -> Tensor:
        """Add the trigger; see ``Trigger``."""
        _require(x)
        _, channels, rows, columns = x.shape
        generator = torch.Generator().manual_seed(self.seed)
        coarse = torch.rand(
            1, channels, -(-rows // self.grain), -(-columns // self.grain), generator=generator
        )
        soft = interpolate(coarse, size=(rows, columns), mode="bilinear", align_corners=False)
        ghost = soft.roll((self.shift, self.shift), dims=(2, 3))
        reflection = 0.6 * soft + 0.4 * ghost
        return (x + self.share * (reflection - 0.5).to(x)).clamp(0.0, 1.0)


IMAGE_TRIGGERS: dict[str, Callable[[], Trigger]] = {
    "BadNets": Patch,
    "Blended": Blended,
    "SIG": Sinusoid,
    "ReFool, simplified": Reflection,
}
"""Triggers with their default strengths, by the name that tables use."""
