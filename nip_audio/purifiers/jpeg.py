"""JPEG compression of a spectrogram, taken for a picture."""

from __future__ import annotations

import io
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.errors import InputError
from nip_audio.purifiers._checks import check_whole, planes_of
from nip_audio.purifiers._items import each_item
from nip_audio.purifiers.base import Level, Purifier

__all__ = ["Jpeg"]

_MOST_COLUMNS = 65500  # of a JPEG file


class Jpeg(Purifier):
    """Write and read as JPEG (Das et al. 2017; Guo et al., ICLR 2018).

    Three channels are a colour picture; any other number are grey pictures, one a channel. ART's
    ``JpegCompression`` does the same with Pillow, which is called directly here: ART needs bounds
    of (0, 1) or (0, 255) and cuts values to whole numbers where they are rounded here.

    Args:
        quality: 1 (worst) to 95.
        bounds: Range of values, spread over the 256 levels of a picture.
    """

    level: ClassVar[Level] = "input"
    differentiable: ClassVar[bool] = False
    random: ClassVar[bool] = False

    def __init__(self, *, quality: int = 50, bounds: Bounds) -> None:
        """See the class."""
        check_whole("quality", quality, 1, 95, usual=50)
        self.quality = quality
        self.bounds = bounds

    @property
    def name(self) -> str:
        """Name with the quality."""
        return f"JPEG {self.quality}"

    def settings(self) -> dict[str, Any]:
        """Return the quality."""
        return {"name": "jpeg", "quality": self.quality}

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Write and read, item by item.

        Raises:
            InputError: If the input is no image, or longer than a JPEG file can be.
        """
        if batch.x.shape[-1] > _MOST_COLUMNS:
            raise InputError(
                f"input has {batch.x.shape[-1]} columns, expected at most {_MOST_COLUMNS}; cut it"
            )
        return each_item(batch, self._compressed)

    def _compressed(self, x: Tensor) -> Tensor:
        low, span = self.bounds.low, self.bounds.high - self.bounds.low
        levels = ((x.detach() - low) / span * 255).round().clamp(0, 255).byte().cpu()
        if x.dim() == 4 and x.shape[1] == 3:
            pictures = levels.permute(0, 2, 3, 1).contiguous().numpy()
            read = torch.from_numpy(np.stack([self._picture(p) for p in pictures]))
            read = read.permute(0, 3, 1, 2)
        else:
            pictures = planes_of(levels)[:, 0].contiguous().numpy()
            read = torch.from_numpy(np.stack([self._picture(p) for p in pictures]))
        return self.bounds.clip(low + read.reshape(x.shape).to(x) / 255 * span)

    def _picture(self, levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        file = io.BytesIO()
        Image.fromarray(levels).save(file, format="jpeg", quality=self.quality)
        with Image.open(file) as picture:
            return np.asarray(picture).copy()
