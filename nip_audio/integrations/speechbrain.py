"""What a SpeechBrain recipe's YAML can name."""

from __future__ import annotations

import torch
from torch import Tensor

from nip_audio.errors import InputError

__all__ = ["babble_like"]


def babble_like(waveforms: Tensor, speaker_count: int = 3) -> Tensor:
    """Sum other items of the batch: a ``noise_funct`` for SpeechBrain's ``AddNoise``.

    Item i gets items i+1 … i+speaker_count (cyclically), each rotated in time by a random amount
    drawn from the global generator, as recipes do.

    Args:
        waveforms: (B, N) with B > ``speaker_count``.
        speaker_count: How many voices babble.

    Returns:
        (B, N), not scaled: ``AddNoise`` does that.

    Raises:
        InputError: If the batch is too small.
    """
    if waveforms.shape[0] <= speaker_count:
        raise InputError(
            f"batch has {waveforms.shape[0]} items, expected more than {speaker_count}; use a "
            "larger batch or fewer babbling speakers"
        )
    shifts = torch.randint(waveforms.shape[1], (speaker_count,)).tolist()
    return torch.stack(
        [
            waveforms.roll(voice + 1, dims=0).roll(shift, dims=1)
            for voice, shift in enumerate(shifts)
        ]
    ).sum(dim=0)
