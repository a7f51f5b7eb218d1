"""Spatial attack: rotates and translates an image until the prediction changes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from nip_audio.attacks._art import margin_of
from nip_audio.attacks.base import Attack, Norm, System
from nip_audio.core.adapter import Bounds
from nip_audio.errors import AttackError

__all__ = ["Kept", "Spatial", "rotate_and_move"]

Kept = Literal["worst", "least"]
"""Successful example to keep: the one with the largest margin, as published, or least motion."""


@dataclass(frozen=True)
class Spatial(Attack):
    """Rotates and translates an image (Engstrom et al. 2019, the search over a grid).

    The attack needs no gradient. It tries every rotation of a grid with every translation. An image
    without a successful combination is returned unchanged, and so is one on which the unchanged
    input succeeds already.

    This is not Foolbox's ``SpatialAttack``, which keeps the first successful point of the grid, one
    of the largest rotations, and confuses the sides of an image that is not square.

    Attributes:
        degrees: Largest rotation in either direction, in degrees.
        pixels: Largest translation along rows and along columns in either direction, in pixels.
        rotations: Number of angles of the grid, evenly spaced.
        translations: Number of steps of the grid along each side, evenly spaced.
        keep: ``worst`` keeps the largest margin, ``least`` the smallest motion.

    Raises:
        AttackError: If a setting is out of range.
    """

    degrees: float = 30.0
    pixels: float = 3.0
    rotations: int = 31
    translations: int = 5
    keep: Kept = "worst"

    white_box: ClassVar[bool] = False
    norm: ClassVar[Norm] = "other"

    def __post_init__(self) -> None:
        """Validate the settings."""
        if not 0 <= self.degrees <= 180 or not 0 <= self.pixels < math.inf:
            raise AttackError(
                f"degrees is {self.degrees} and pixels {self.pixels}, expected 0 to 180 and ≥ 0; "
                "30 and a tenth of the side are usual"
            )
        if self.rotations < 1 or self.translations < 1 or self.rotations * self.translations < 2:
            raise AttackError(
                f"rotations is {self.rotations} and translations {self.translations}, expected ≥ 1 "
                "each, and not 1 of both; 31 and 5 are usual"
            )
        if self.keep not in get_args(Kept):
            raise AttackError(f"keep is {self.keep!r}, expected one of {get_args(Kept)}")

    @property
    def name(self) -> str:
        """Name in the registry."""
        return "spatial"

    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        clean = system.batch.x
        if clean.dim() != 4:
            raise AttackError(
                f"spatial got input of shape {tuple(clean.shape)}, expected images (items, "
                "channels, rows, columns), because recordings cannot be rotated; choose another "
                "attack"
            )
        with torch.no_grad():
            found, best = clean.clone(), self._margin(system, clean)
            started = best > 0
            for angle, down, right in self._grid():
                if self.keep == "least" and bool((best > 0).all()):
                    break
                x = rotate_and_move(
                    clean, degrees=angle, down=down, right=right, bounds=system.bounds
                )
                margin = self._margin(system, x)
                better = (margin > best.clamp_min(0)) & ~started
                if self.keep == "least":
                    better &= best <= 0
                found = torch.where(better[:, None, None, None], x, found)
                best = torch.where(better, margin, best)
        return found

    def _margin(self, system: System, x: Tensor) -> Tensor:
        return margin_of(system.scores(x), system.label, targeted=system.targeted)

    def _grid(self) -> list[tuple[float, float, float]]:
        """List every rotation with every translation, the smallest motion first."""
        angles = _spaced(self.degrees, self.rotations)
        steps = _spaced(self.pixels, self.translations)
        points = [(a, down, right) for a in angles for down in steps for right in steps]

        def size(point: tuple[float, float, float]) -> float:
            angle, down, right = point
            turned = angle / self.degrees if self.degrees else 0.0
            moved = math.hypot(down, right) / self.pixels if self.pixels else 0.0
            return turned**2 + moved**2

        return sorted((point for point in points if any(point)), key=size)


def rotate_and_move(
    x: Tensor, *, degrees: float, down: float, right: float, bounds: Bounds
) -> Tensor:
    """Rotate images about their centre, then translate them; uncovered pixels are ``bounds.low``.

    Args:
        x: (B, C, H, W) pixel values in bounds.
        degrees: Anticlockwise rotation, in degrees.
        down: Downward translation, in pixels.
        right: Translation to the right, in pixels.
        bounds: Range of valid pixel values.

    Returns:
        (B, C, H, W) images, interpolated bilinearly.

    Example:
        >>> x = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
        >>> rotate_and_move(x, degrees=0, down=1, right=0, bounds=Bounds(0.0, 1.0)).tolist()
        [[[[0.0, 0.0], [1.0, 0.0]]]]
    """
    rows, columns = x.shape[2:]
    angle = math.radians(degrees)
    # the grid holds the source of each pixel, in half sides: the inverse of the motion
    turn = torch.tensor(
        [
            [math.cos(angle), -math.sin(angle) * rows / columns],
            [math.sin(angle) * columns / rows, math.cos(angle)],
        ],
        dtype=x.dtype,
        device=x.device,
    )
    moved = torch.tensor([2 * right / columns, 2 * down / rows], dtype=x.dtype, device=x.device)
    theta = torch.cat([turn, -(turn @ moved)[:, None]], dim=1)
    places = affine_grid(theta.expand(len(x), 2, 3), list(x.shape), align_corners=False)
    above = grid_sample(
        x - bounds.low, places, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return bounds.clip(above + bounds.low)


def _spaced(most: float, count: int) -> list[float]:
    """Return evenly spaced values from -most to most; a single one is 0."""
    return [0.0] if count == 1 else torch.linspace(-most, most, count).tolist()
