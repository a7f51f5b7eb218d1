"""Cut a recording into clips of equal length."""

from __future__ import annotations

from torch import Tensor

from nip_audio.audio.io import Audio
from nip_audio.errors import InputError

__all__ = ["cut"]


def cut(audio: Audio, crop_s: float | None) -> list[Tensor]:
    """Cut a recording into consecutive clips; a shorter rest at the end is dropped.

    Args:
        audio: Recording to cut.
        crop_s: Length of a clip in seconds; None keeps the recording whole.

    Returns:
        Waveforms (N,); none if the recording is shorter than one clip.

    Raises:
        InputError: If a clip would be shorter than one sample.
    """
    if crop_s is None:
        return [audio.samples]
    size = round(crop_s * audio.sample_rate_hz)
    if size < 1:
        raise InputError(
            f"clip length is {crop_s:g} s, expected at least one sample; pass seconds, e.g. 2.5"
        )
    starts = range(0, len(audio.samples) - size + 1, size)
    return [audio.samples[start : start + size] for start in starts]
