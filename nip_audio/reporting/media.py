"""Encode sound and images as ``data:`` URLs, so that the page needs no other file."""

from __future__ import annotations

import base64
import io

import matplotlib
import numpy as np
import soundfile
from PIL import Image
from torch import Tensor

__all__ = ["matrix_url", "pixels_url", "sound_url"]


def sound_url(samples: Tensor, sample_rate_hz: int) -> str:
    """Encode a waveform as 16-bit FLAC, which is lossless and plays in every current browser.

    Args:
        samples: (N,) waveform in [-1, 1].
        sample_rate_hz: Sample rate of the waveform.
    """
    buffer = io.BytesIO()
    soundfile.write(buffer, samples.numpy(), sample_rate_hz, "PCM_16", format="FLAC")
    return _url("audio/flac", buffer.getvalue())


def matrix_url(values: Tensor, low: float, high: float, *, colours: str) -> str:
    """Encode a matrix as a PNG image with its first row at the bottom.

    Args:
        values: (F, T) matrix.
        low: Value of the first colour.
        high: Value of the last colour.
        colours: Name of a Matplotlib colour map.
    """
    shares = ((values.flip(0) - low) / (high - low)).clamp(0, 1)
    image = Image.fromarray((shares * 255).round().byte().numpy())
    table = matplotlib.colormaps[colours](np.arange(256), bytes=True)[:, :3]
    image = image.convert("P")
    image.putpalette(table.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return _url("image/png", buffer.getvalue())


def pixels_url(pixels: Tensor) -> str:
    """Encode pixels as an 8-bit PNG image.

    Args:
        pixels: (1 or 3, H, W) pixels in [0, 1].
    """
    levels = (pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(levels[:, :, 0] if levels.shape[2] == 1 else levels)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return _url("image/png", buffer.getvalue())


def _url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
