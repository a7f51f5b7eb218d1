"""Use the toolkit in SpeechBrain: guards, screening, purifiers and models for recipes and scripts.

docs/results/speechbrain.md shows how. Recipes and published YAML files refer to these names, so
that neither names nor arguments can change.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nip_audio.errors import InputError
from nip_audio.speechbrain.backdoor_stage import BackdoorSearch
from nip_audio.speechbrain.cached_verification import EmbeddingCache, verify_batch
from nip_audio.speechbrain.guard import Guard
from nip_audio.speechbrain.guarded import GuardedEncoderClassifier, GuardedSpeakerRecognition
from nip_audio.speechbrain.guided_purifier import GuidedPurifier
from nip_audio.speechbrain.local_model import load_trusted, write_card
from nip_audio.speechbrain.screened_data import ScreenedData
from nip_audio.speechbrain.screened_training import ScreenedTraining
from nip_audio.speechbrain.unpublished import unpublished

__all__ = [
    "BackdoorSearch",
    "EmbeddingCache",
    "Guard",
    "GuardedEncoderClassifier",
    "GuardedSpeakerRecognition",
    "GuidedPurifier",
    "ScreenedData",
    "ScreenedTraining",
    "babble_like",
    "load_trusted",
    "unpublished",
    "verify_batch",
    "write_card",
]


def babble_like(waveforms: Tensor, speaker_count: int = 3) -> Tensor:
    """Sum other items of the batch to babble: a ``noise_funct`` for SpeechBrain's ``AddNoise``.

    Item i gets items i+1 … i+speaker_count (cyclically), each rotated in time by a random amount
    drawn from the global generator, as recipes do.

    Args:
        waveforms: (B, N) waveforms with B > ``speaker_count``.
        speaker_count: Number of voices in the babble.

    Returns:
        (B, N) babble; ``AddNoise`` scales it.

    Raises:
        InputError: If the batch has too few items.
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
