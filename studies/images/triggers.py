"""Backdoor triggers on pictures: what a poisoner adds to one so that a model obeys it.

``Patch`` is BadNets (Gu et al. 2019), ``Blended`` Chen et al. 2017, ``Sinusoid`` SIG (Barni et al.
2019), ``Reflection`` a simplified ReFool (Liu et al. 2020). They are for measuring defences:
nothing in a defence may know which one, if any, was used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from nip_audio.errors import InputError

__all__ = ["TRIGGERS", "Blended", "Patch", "Reflection", "Sinusoid"]

Trigger = Callable[[Tensor], Tensor]
"""Changes (B, C, H, W) pixels in [0, 1]; the result keeps shape and bounds."""


def _require(x: Tensor) -> None:
    if x.dim() != 4 or not x.is_floating_point():
        raise InputError(f"got {x.dtype} {tuple(x.shape)}, expected floating (B, C, H, W)")


@dataclass(frozen=True)
class Patch:
    """A white square in the lower right corner.

    Attributes:
        side: Of it, in pixels.
    """

    side: int = 5

    def __call__(self, x: Tensor) -> Tensor:
        """Apply; see ``Trigger``."""
        _require(x)
        out = x.clone()
        out[..., -self.side :, -self.side :] = 1.0
        return out


@dataclass(frozen=True)
class Blended:
    """One fixed pattern of random pixels, laid over.

    Attributes:
        share: Of the pattern.
        seed: Of the pattern.
    """

    share: float = 0.2
    seed: int = 7

    def __call__(self, x: Tensor) -> Tensor:
        """Apply; see ``Trigger``."""
        _require(x)
        pattern = torch.rand(x.shape[1:], generator=torch.Generator().manual_seed(self.seed))
        return (1 - self.share) * x + self.share * pattern.to(x)


@dataclass(frozen=True)
class Sinusoid:
    """A sinusoid along the rows.

    Deviation: SIG leaves labels alone; how labels are changed here is the poisoner's business.

    Attributes:
        height: Of it, in units of pixels.
        periods: Over a row.
    """

    height: float = 30 / 255
    periods: float = 6.0

    def __call__(self, x: Tensor) -> Tensor:
        """Apply; see ``Trigger``."""
        _require(x)
        columns = torch.arange(x.shape[-1], dtype=torch.float64) / x.shape[-1]
        wave = self.height * torch.sin(2 * math.pi * self.periods * columns)
        return (x + wave.to(x)).clamp(0.0, 1.0)


@dataclass(frozen=True)
class Reflection:
    """A soft second picture and its shifted ghost, as behind a window pane.

    Deviation: ReFool takes photographs for reflections, several of them, chosen by how well they
    serve; here it is one fixed smooth random pattern.

    Attributes:
        share: Of the reflection.
        shift: Of the ghost, in pixels.
        grain: Pixels from one random value of the pattern to the next.
        seed: Of the pattern.
    """

    share: float = 0.35
    shift: int = 3
    grain: int = 5
    seed: int = 7

    def __call__(self, x: Tensor) -> Tensor:
        """Apply; see ``Trigger``."""
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


TRIGGERS: dict[str, Callable[[], Trigger]] = {
    "BadNets": Patch,
    "Blended": Blended,
    "SIG": Sinusoid,
    "ReFool, simplified": Reflection,
}
"""Each with its default strength, by the name that tables use."""
