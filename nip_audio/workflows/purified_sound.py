"""Purify samples: the sound that a purifier makes of a recording, whatever it works on."""

from __future__ import annotations

import torch
from torch import Tensor

from nip_audio.audio.resynthesis import ROUNDS, can_resynthesize, resynthesize
from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError
from nip_audio.purifiers.base import Purifier
from nip_audio.workflows.files import Purified

__all__ = ["purify_samples"]


@torch.no_grad()
def purify_samples(
    model: InstrumentedModel,
    purifier: Purifier,
    samples: Tensor,
    *,
    generator: torch.Generator,
    rounds: int = ROUNDS,
) -> Purified:
    """Purify a waveform; a purifier of spectrograms changes it through ``resynthesize``.

    Args:
        model: Model that the purifier protects, with its front end.
        purifier: Purifier that is applied.
        samples: (N,) waveform in [-1, 1] at the model's sample rate.
        generator: Source of the purifier's random draws.
        rounds: Number of corrections in ``resynthesize``, for a purifier of spectrograms.

    Raises:
        InputError: If the purifier works on model input that is not a spectrogram.
    """
    if purifier.level == "raw":
        return Purified(purifier.purify(Batch(samples[None]), generator=generator).x[0])
    if not can_resynthesize(model.front_end):
        raise InputError(
            f"{purifier.name} works on the model's input, which comes from "
            f"{type(model.front_end).__name__}, expected a spectrogram: other input cannot "
            "be converted back to a waveform; choose a purifier that works on waveforms"
        )
    if purifier.before is not None:
        samples = purifier.before.purify(Batch(samples[None]), generator=generator).x[0]
    before = model.to_input(Batch(samples[None]))
    asked = purifier.purify(before, generator=generator).x[0]
    made = resynthesize(samples, before.x[0], asked, model.front_end, rounds=rounds)
    return Purified(made.samples, asked, rounds)
