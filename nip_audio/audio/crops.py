"""Crops: consecutive pieces of one recording."""

from __future__ import annotations

from torch import Tensor

from nip_audio.audio.io import Audio
from nip_audio.errors import InputError

__all__ = ["cut"]


def cut(audio: Audio, crop_s: float | None) -> list[Tensor]:
    """Cut a recording into consecutive crops; what is left at the end is dropped.

    Args:
        audio: The recording.
        crop_s: Seconds; None keeps it whole.

    Returns:
        (N,) each; none if the recording is shorter than one crop.

    Raises:
        InputError: If a crop would hold no sample.
    """
    if crop_s is None:
        return [audio.samples]
    size = round(crop_s * audio.sample_rate_hz)
    if size < 1:
        raise InputError(f"crops of {crop_s:g} s hold no sample; give seconds, e.g. 2.5")
    starts = range(0, len(audio.samples) - size + 1, size)
    return [audio.samples[start : start + size] for start in starts]
