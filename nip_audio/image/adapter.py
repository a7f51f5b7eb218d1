"""Read and write image files: Pillow decodes and resizes, and every change is recorded."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image as pillow
from PIL import UnidentifiedImageError
from torch import Tensor

from nip_audio.core.adapter import SourceFile
from nip_audio.core.files import UnfitFileError, read_regular
from nip_audio.core.state import write_atomic
from nip_audio.errors import ImageError, InputError

__all__ = ["IMAGE_SUFFIXES", "Image", "ImageAdapter", "pixels_sha256", "png_bytes", "to_8_bits"]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".ppm", ".bmp", ".webp"})
"""File name endings that a folder walk takes for images; reading detects the format by content."""

_FORMATS = ("PNG", "JPEG", "PPM", "BMP", "WEBP")
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")
_LARGEST = 50_000_000
_LARGEST_BYTES = 1 << 28  # the largest image without compression has fewer
_WHITE = 255


@dataclass(frozen=True)
class Image:
    """One decoded image.

    Attributes:
        pixels: (C, H, W) float32 in [0, 1].
        sha256: SHA-256 of the file's bytes.
        content_sha256: SHA-256 of the pixels.
        original_size: (height, width) of the file, before any resizing.
        encoding: File format and colour mode of the file, e.g. ``PNG/RGB``.
        changes: Changes made to the image, in words.
    """

    pixels: Tensor
    sha256: str
    content_sha256: str
    original_size: tuple[int, int]
    encoding: str
    changes: tuple[str, ...] = ()

    @property
    def raw(self) -> Tensor:
        """Raw model input: the pixels."""
        return self.pixels

    @property
    def noise_key(self) -> str:
        """Key that seeds the noise of a measurement: the SHA-256 of the pixels."""
        return self.content_sha256


def pixels_sha256(pixels: Tensor) -> str:
    """Return the SHA-256 of pixels in [0, 1], rounded to 8 bits, and of their shape."""
    shape = ",".join(map(str, pixels.shape))
    levels = (pixels * 255).round().to(torch.uint8).contiguous().numpy()
    return hashlib.sha256(shape.encode() + levels.tobytes()).hexdigest()


def to_8_bits(pixels: Tensor) -> Tensor:
    """Clip pixels to [0, 1] and round them to the values that an 8-bit file holds.

    Example:
        >>> to_8_bits(torch.tensor([0.5, 1.2])).mul(255).tolist()
        [128.0, 255.0]
    """
    return (pixels.clamp(0.0, 1.0) * 255).round() / 255


def png_bytes(x: Tensor) -> bytes:
    """Encode (C, H, W) pixels in [0, 1] as an 8-bit PNG.

    Raises:
        InputError: If the pixels have another shape or range.
    """
    if x.dim() != 3 or x.shape[0] not in (1, 3):
        raise InputError(f"pixels are {tuple(x.shape)}, expected (1 or 3, rows, columns)")
    if not bool(x.isfinite().all()) or float(x.min()) < 0 or float(x.max()) > 1:
        raise InputError("pixels are not all finite and in [0, 1]; clip them to the bounds")
    levels = (x.detach().cpu() * 255).round().to(torch.uint8).numpy()
    image = pillow.fromarray(levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class ImageAdapter:
    """Convert image files to pixels of one size and back.

    Images of another size are resized to the model's (bicubic, antialiased, without keeping the
    aspect ratio). Colour is converted to grey, or grey to colour, to match the model's channels.
    Transparent areas become white. Every change is listed in ``Image.changes``.

    Attributes:
        channels: Number of channels: 1 for grey, 3 for RGB.
        height: Number of rows.
        width: Number of columns.

    Raises:
        InputError: If the shape is invalid.
    """

    tag: ClassVar[str] = "image"

    channels: int = 1
    height: int = 28
    width: int = 28

    def __post_init__(self) -> None:
        """Check the shape."""
        if self.channels not in (1, 3) or min(self.height, self.width) < 1:
            raise InputError(
                f"images are {self.channels} × {self.height} × {self.width}, expected 1 or 3 "
                "channels and at least one row and column"
            )

    @property
    def suffixes(self) -> frozenset[str]:
        """File name endings that a folder walk takes for images."""
        return IMAGE_SUFFIXES

    def read(self, file: SourceFile) -> Image:
        """Read one image file of a source.

        Raises:
            ImageError: With a code of ``load``, or of ``Recording.check``.
        """
        file.check(ImageError)
        return self.load(Path(file.path))

    def load(self, path: Path | str) -> Image:
        """Read one image file.

        Raises:
            ImageError: If the file is missing, empty, damaged, too large, animated, or not an
                image; its code is ``unreadable``, ``not_a_file``, ``empty``, ``damaged``,
                ``too_large``, ``animated``, ``depth`` or ``not_a_picture``.
        """
        path = Path(path)
        data = self._bytes(path)
        try:
            with pillow.open(io.BytesIO(data), formats=_FORMATS) as opened:
                self._check(path, opened)
                opened.load()
                size = (opened.height, opened.width)
                encoding = f"{opened.format}/{opened.mode}"
                image, changes = self._fitted(opened)
        except UnidentifiedImageError as err:
            raise ImageError(
                path,
                code="not_a_picture",
                found=f"it is not an image in one of the formats {', '.join(_FORMATS)}",
                remedy="convert it to PNG",
            ) from err
        except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as err:
            raise ImageError(
                path, code="damaged", found=f"it cannot be decoded ({err})", remedy="restore it"
            ) from err
        values = torch.from_numpy(np.array(image, dtype=np.float32) / 255)
        pixels = values[None] if self.channels == 1 else values.permute(2, 0, 1).contiguous()
        digest = hashlib.sha256(data).hexdigest()
        return Image(pixels, digest, pixels_sha256(pixels), size, encoding, changes)

    def read_back(self, path: Path) -> Image:
        """Read a written image."""
        return self.load(path)

    def to_json(self) -> dict[str, Any]:
        """Return the shape that images are brought to."""
        return {name: getattr(self, name) for name in ("channels", "height", "width")}

    def save(self, x: Tensor, path: Path, *, force: bool = False) -> None:
        """Write an image as an 8-bit PNG, whole or not at all.

        Args:
            x: (C, H, W) pixels in [0, 1].
            path: File to write; its name ends in ``.png``, since lossy formats would change what an
                attack or a purifier did.
            force: Overwrite an existing file.

        Raises:
            InputError: If the name has another ending, or the pixels another shape or range.
            OutputError: If the file exists and ``force`` is false, or it cannot be written.
        """
        if path.suffix.lower() != ".png":
            raise InputError(f"{path} does not end in .png; name a PNG file, which is lossless")
        write_atomic(path, png_bytes(x), force=force)

    def _bytes(self, path: Path) -> bytes:
        try:
            data = read_regular(path, most=_LARGEST_BYTES)
        except UnfitFileError as err:
            raise ImageError(
                path,
                code="too_large" if path.is_file() else "not_a_file",
                found=str(err),
                remedy="convert it to PNG" if path.is_file() else "pass a file",
            ) from err
        except OSError as err:
            raise ImageError(
                path,
                code="unreadable",
                found=f"it cannot be read ({err.strerror})",
                remedy="check the path",
            ) from err
        if not data:
            raise ImageError(path, code="empty", found="it has 0 bytes", remedy="restore it")
        return data

    def _check(self, path: Path, opened: pillow.Image) -> None:
        if opened.width * opened.height > _LARGEST:
            raise ImageError(
                path,
                code="too_large",
                found=f"it has {opened.width} × {opened.height} pixels, at most {_LARGEST:,} are "
                "allowed",
                remedy="scale it down",
            )
        if getattr(opened, "n_frames", 1) != 1:
            raise ImageError(
                path,
                code="animated",
                found="it has several frames",
                remedy="save one of them as an image",
            )
        if opened.mode not in _MODES:
            raise ImageError(
                path,
                code="depth",
                found=f"its pixels have Pillow's mode {opened.mode}, expected 8 bits per channel",
                remedy="convert it to 8 bits per channel",
            )

    def _fitted(self, opened: pillow.Image) -> tuple[pillow.Image, tuple[str, ...]]:
        changes = []
        image: pillow.Image = opened
        if opened.mode in ("LA", "RGBA") or "transparency" in opened.info:
            on_white = pillow.new("RGBA", opened.size, (_WHITE,) * 4)
            image = pillow.alpha_composite(on_white, opened.convert("RGBA"))
            changes.append("placed on white")
        wanted = "L" if self.channels == 1 else "RGB"
        if image.mode != wanted:
            changes.append(f"{opened.mode} to {wanted}")
            image = image.convert(wanted)
        if image.size != (self.width, self.height):
            changes.append(f"resized from {image.width} × {image.height}")
            image = image.resize((self.width, self.height), pillow.Resampling.BICUBIC)
        return image, tuple(changes)
