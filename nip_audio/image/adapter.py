"""Picture files in and out: Pillow decodes and resizes, every change is on record."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image as pillow
from PIL import UnidentifiedImageError
from torch import Tensor

from nip_audio.core.adapter import Batch, Bounds, SourceFile
from nip_audio.core.state import write_atomic
from nip_audio.errors import ImageError, InputError

__all__ = ["IMAGE_SUFFIXES", "Image", "ImageAdapter", "pixels_sha256", "png_bytes", "to_8_bits"]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".ppm", ".bmp", ".webp"})
"""File name endings a folder walk takes for pictures; reading itself goes by content."""

_FORMATS = ("PNG", "JPEG", "PPM", "BMP", "WEBP")
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")
_LARGEST = 50_000_000
_WHITE = 255


@dataclass(frozen=True)
class Image:
    """A picture as a model takes it.

    Attributes:
        pixels: (C, H, W) float32 in [0, 1].
        sha256: Of the file.
        content_sha256: Of the pixels.
        original_size: (height, width) of the file, before any resizing.
        encoding: Format and pixels of the file, e.g. ``PNG/RGB``.
        changes: What was done to it, in words.
    """

    pixels: Tensor
    sha256: str
    content_sha256: str
    original_size: tuple[int, int]
    encoding: str
    changes: tuple[str, ...] = ()

    @property
    def raw(self) -> Tensor:
        """What a model takes of it: the pixels."""
        return self.pixels

    @property
    def noise_key(self) -> str:
        """What the noise of a measurement is seeded with: the hash of the pixels."""
        return self.content_sha256


def pixels_sha256(pixels: Tensor) -> str:
    """Hash pixels in [0, 1] as the 8 bits a file has: equal pictures have the same."""
    shape = ",".join(map(str, pixels.shape))
    levels = (pixels * 255).round().to(torch.uint8).contiguous().numpy()
    return hashlib.sha256(shape.encode() + levels.tobytes()).hexdigest()


def to_8_bits(pixels: Tensor) -> Tensor:
    """Round values in [0, 1] to those that an 8-bit file holds.

    Example:
        >>> to_8_bits(torch.tensor([0.5, 1.2])).mul(255).tolist()
        [128.0, 255.0]
    """
    return (pixels.clamp(0.0, 1.0) * 255).round() / 255


def png_bytes(x: Tensor) -> bytes:
    """Encode (C, H, W) pixels in [0, 1] as an 8-bit PNG.

    Raises:
        InputError: If they are of another shape or range.
    """
    if x.dim() != 3 or x.shape[0] not in (1, 3):
        raise InputError(f"pixels are {tuple(x.shape)}, expected (1 or 3, rows, columns)")
    if not bool(x.isfinite().all()) or float(x.min()) < 0 or float(x.max()) > 1:
        raise InputError("pixels are not all in [0, 1]; clip them to the bounds")
    levels = (x.detach().cpu() * 255).round().to(torch.uint8).numpy()
    picture = pillow.fromarray(levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class ImageAdapter:
    """Picture files to batches of one size and back.

    A picture of another size is resized to the model's (bicubic, antialiased, aspect not kept);
    colours become grey values, or grey ones colours, as the model has channels; what is transparent
    lies on white. What was done stands in ``Image.changes``.

    Attributes:
        channels: 1 for grey values, 3 for RGB.
        height: Rows.
        width: Columns.
        bounds: Range of a pixel.

    Raises:
        InputError: If no picture could have this shape.
    """

    channels: int = 1
    height: int = 28
    width: int = 28
    bounds: Bounds = field(default_factory=lambda: Bounds(0.0, 1.0))

    def __post_init__(self) -> None:
        """Check."""
        if self.channels not in (1, 3) or min(self.height, self.width) < 1:
            raise InputError(
                f"pictures are {self.channels} × {self.height} × {self.width}, expected 1 or 3 "
                "channels and at least one row and column"
            )

    @property
    def suffixes(self) -> frozenset[str]:
        """File name endings that a folder walk takes for pictures."""
        return IMAGE_SUFFIXES

    def read(self, file: SourceFile) -> Image:
        """Read one file; see ``load``.

        Raises:
            ImageError: As ``load``; ``outside`` if links lead out of the file's root.
        """
        if file.leads_out:
            raise ImageError(
                file.path,
                code="outside",
                found=f"it is a link that leads out of {file.root}",
                remedy="put the file itself there, or pass --follow-links",
            )
        return self.load(Path(file.path))

    def load(self, path: Path) -> Image:
        """Read one file.

        Raises:
            ImageError: If it is missing, empty, damaged, too large, animated, or no picture.
        """
        data = self._bytes(Path(path))
        try:
            with pillow.open(io.BytesIO(data), formats=_FORMATS) as opened:
                self._check(path, opened)
                opened.load()
                size = (opened.height, opened.width)
                encoding = f"{opened.format}/{opened.mode}"
                picture, changes = self._fitted(opened)
        except UnidentifiedImageError as err:
            raise ImageError(
                path,
                code="not_a_picture",
                found=f"its content is none of {', '.join(_FORMATS)}",
                remedy="convert it to PNG",
            ) from err
        except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as err:
            raise ImageError(
                path, code="damaged", found=f"it cannot be decoded ({err})", remedy="restore it"
            ) from err
        values = torch.from_numpy(np.array(picture, dtype=np.float32) / 255)
        pixels = values[None] if self.channels == 1 else values.permute(2, 0, 1).contiguous()
        digest = hashlib.sha256(data).hexdigest()
        return Image(pixels, digest, pixels_sha256(pixels), size, encoding, changes)

    def collate(self, items: list[Image]) -> Batch:
        """Stack pictures to (B, C, H, W); ids are their files' hashes."""
        return Batch(torch.stack([i.pixels for i in items]), None, tuple(i.sha256 for i in items))

    def project(self, x: Tensor, reference: Tensor, eps: float) -> Tensor:
        """Clip ``x`` to within ``eps`` (L∞) of ``reference`` and to the bounds."""
        return self.bounds.clip(torch.minimum(torch.maximum(x, reference - eps), reference + eps))

    def save(self, x: Tensor, path: Path, *, force: bool = False) -> None:
        """Write (C, H, W) pixels in [0, 1] as an 8-bit PNG, atomically.

        Raises:
            InputError: If the name does not end in .png (other formats lose what an attack or a
                purifier did), or the pixels are of another shape or range.
            OutputError: If the file exists and ``force`` is not set.
        """
        if path.suffix.lower() != ".png":
            raise InputError(f"{path} does not end in .png, expected a lossless picture file")
        write_atomic(path, png_bytes(x), force=force)

    def _bytes(self, path: Path) -> bytes:
        try:
            data = path.read_bytes()
        except OSError as err:
            raise ImageError(
                path, code="unreadable", found=f"{err.strerror}", remedy="check the path"
            ) from err
        if not data:
            raise ImageError(path, code="empty", found="it has 0 bytes", remedy="restore it")
        return data

    def _check(self, path: Path, opened: pillow.Image) -> None:
        if opened.width * opened.height > _LARGEST:
            raise ImageError(
                path,
                code="too_large",
                found=f"it has {opened.width} × {opened.height} pixels",
                remedy=f"scale it below {_LARGEST:,} pixels",
            )
        if getattr(opened, "n_frames", 1) != 1:
            raise ImageError(
                path, code="animated", found="it has several frames", remedy="give one of them"
            )
        if opened.mode not in _MODES:
            raise ImageError(
                path,
                code="depth",
                found=f"its pixels are of Pillow's mode {opened.mode}",
                remedy="convert it to 8 bits a channel",
            )

    def _fitted(self, opened: pillow.Image) -> tuple[pillow.Image, tuple[str, ...]]:
        changes = []
        picture: pillow.Image = opened
        if opened.mode in ("LA", "RGBA") or "transparency" in opened.info:
            on_white = pillow.new("RGBA", opened.size, (_WHITE,) * 4)
            picture = pillow.alpha_composite(on_white, opened.convert("RGBA"))
            changes.append("laid on white")
        wanted = "L" if self.channels == 1 else "RGB"
        if picture.mode != wanted:
            changes.append(f"{opened.mode} to {wanted}")
            picture = picture.convert(wanted)
        if picture.size != (self.width, self.height):
            changes.append(f"resized from {picture.width} × {picture.height}")
            picture = picture.resize((self.width, self.height), pillow.Resampling.BICUBIC)
        return picture, tuple(changes)
