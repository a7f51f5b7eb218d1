"""Mix the channels of a file into one signal, after looking at what each of them holds.

Channels that cancel each other, or that are silent, would spoil a blind average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nip_audio.audio.windows import Sound, has_speech, sound_of, voice_of

__all__ = ["Channel", "Mixture", "mix"]

_CANCELLED = 0.5
_FAINT = 10 ** (-30 / 20)


@dataclass(frozen=True)
class Channel:
    """One channel of a recording, or the mixture of all.

    Attributes:
        number: Its number in the file, from 1; 0 for the mixture.
        samples: (N,) float32 in [-1, 1] at ``sample_rate_hz``.
        sample_rate_hz: Sample rate of the samples.
    """

    number: int
    samples: Tensor
    sample_rate_hz: int

    @cached_property
    def sound(self) -> Sound:
        """Which samples belong to sound rather than to silence, (N,)."""
        return sound_of(self.samples, self.sample_rate_hz)

    @cached_property
    def speaks(self) -> bool:
        """Whether it may hold speech, and not hum or hiss alone."""
        return has_speech(self.samples, self.sample_rate_hz, self.sound)

    @cached_property
    def voice(self) -> Tensor:
        """Samples that a voice is taken from: without silence where there is much of it."""
        return voice_of(self.samples, self.sample_rate_hz, self.sound)


@dataclass(frozen=True)
class Mixture:
    """Several channels as one signal.

    Attributes:
        samples: (N,) float32.
        channels: Channels that it is made of, if they differ: two at least, or none.
        how: Words that say how they were mixed.
    """

    samples: NDArray[np.float32]
    channels: tuple[Channel, ...]
    how: str


def mix(
    mean: NDArray[np.float32],
    separate: Sequence[NDArray[np.float32]],
    *,
    total: int,
    sample_rate_hz: int,
    min_rms: float,
) -> Mixture:
    """Mix channels that differ: their mean, without silent ones, or the loudest if they cancel.

    A channel counts as silent if its root mean square (RMS) is below ``min_rms``, or if it holds
    no speech and lies 30 dB below the loudest one.

    Args:
        mean: (N,) mean of all channels.
        separate: (N,) samples of each of the first channels.
        total: Number of channels of the file; of those beyond ``separate`` only the mean is known.
        sample_rate_hz: Sample rate of the samples.
        min_rms: RMS below which a channel is silent.
    """
    rms = [float(one.std()) for one in separate]
    channels = [
        Channel(number, torch.from_numpy(samples), sample_rate_hz)
        for number, samples in enumerate(separate, start=1)
    ]
    live = [
        one
        for one, level in zip(channels, rms, strict=True)
        if level >= min_rms and (level >= _FAINT * max(rms) or one.speaks)
    ]
    if not live:
        return Mixture(mean, (), f"{total} channels averaged")
    complete = len(channels) == total
    if len(live) == 1 and complete:
        number = live[0].number
        how = f"channel {number} of {total} taken: the others are silent"
        return Mixture(separate[number - 1], (), how)
    samples, how = mean, f"{total} channels averaged, which differ"
    if len(live) < len(channels) and complete:
        samples = np.mean([separate[one.number - 1] for one in live], axis=0, dtype=np.float32)
        how = f"{len(live)} of {total} channels averaged, which differ: the others are silent"
    # the level of a mean of signals that have nothing to do with each other
    unrelated = float(np.sqrt(sum(rms[one.number - 1] ** 2 for one in live))) / len(live)
    if complete and float(samples.std()) < _CANCELLED * unrelated:
        loudest = max(live, key=lambda one: rms[one.number - 1]).number
        samples = separate[loudest - 1]
        how = f"channel {loudest} of {total} taken: the channels cancel each other"
    return Mixture(samples, tuple(live), how)
