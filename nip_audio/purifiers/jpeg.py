"""JPEG compression of an image, or of a spectrogram treated as an image."""

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

_MOST_COLUMNS = 65500  # the widest image that a JPEG file can hold


class Jpeg(Purifier):
    """Compress as JPEG and decompress (Das et al. 2017; Guo et al., ICLR 2018).

    Three channels are compressed as a colour image; any other number as grey images, one per
    channel. ``JpegCompression`` of the Adversarial Robustness Toolbox (ART) does the same with
    Pillow, which is called directly here: ART requires bounds of (0, 1) or (0, 255), and truncates
    values to whole numbers where this class rounds.

    Args:
        quality: JPEG quality, 1 (worst) to 95.
        bounds: Range of the input, which is mapped to the 256 levels of an image.

    Raises:
        InputError: If ``quality`` is out of range.
    """

    level: ClassVar[Level] = "input"
    differentiable: ClassVar[bool] = False
    random: ClassVar[bool] = False

    def __init__(self, *, quality: int = 50, bounds: Bounds) -> None:
        check_whole("quality", quality, 1, 95, usual=50)
        self.quality = quality
        self.bounds = Bounds.of(bounds)

    @property
    def name(self) -> str:
        """Name with the quality."""
        return f"JPEG {self.quality}"

    def settings(self) -> dict[str, Any]:
        """Return the quality."""
        return {"name": "jpeg", "quality": self.quality}

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Compress and decompress, item by item.

        Raises:
            InputError: If the input is not an image or spectrogram, or wider than a JPEG file can
                be.
        """
        if batch.x.shape[-1] > _MOST_COLUMNS:
            raise InputError(
                f"input has {batch.x.shape[-1]} columns, expected at most {_MOST_COLUMNS}; cut it "
                "into shorter parts"
            )
        return each_item(batch, self._compressed)

    def _compressed(self, x: Tensor) -> Tensor:
        low, span = self.bounds.low, self.bounds.high - self.bounds.low
        levels = ((x.detach() - low) / span * 255).round().clamp(0, 255).byte().cpu()
        if x.dim() == 4 and x.shape[1] == 3:
            images = levels.permute(0, 2, 3, 1).contiguous().numpy()
            read = torch.from_numpy(np.stack([self._through_jpeg(image) for image in images]))
            read = read.permute(0, 3, 1, 2)
        else:
            images = planes_of(levels)[:, 0].contiguous().numpy()
            read = torch.from_numpy(np.stack([self._through_jpeg(image) for image in images]))
        return self.bounds.clip(low + read.reshape(x.shape).to(x) / 255 * span)

    def _through_jpeg(self, levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        file = io.BytesIO()
        Image.fromarray(levels).save(file, format="jpeg", quality=self.quality)
        with Image.open(file) as image:
            return np.asarray(image).copy()
