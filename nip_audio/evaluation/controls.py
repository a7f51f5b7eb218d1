"""Change recordings harmlessly, to see whether a defence mistakes such changes for an attack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from nip_audio.core.seeds import seed_of
from nip_audio.evaluation.systems import Item
from nip_audio.screening import changes
from nip_audio.screening.changes import Samples, as_clip

__all__ = ["CONTROLS", "Control", "changed_clips"]

_Change = Callable[[Samples, int, np.random.Generator], Samples]


@dataclass(frozen=True)
class Control:
    """A harmless change.

    Attributes:
        name: Name of the change in tables.
        change: Function of (N,) samples, the rate in hertz and a random generator that returns
            about N changed samples.
    """

    name: str
    change: _Change

    def apply(self, clip: Tensor, *, sample_rate_hz: int, seed: int) -> Tensor:
        """Change a clip.

        Args:
            clip: (N,) samples in [-1, 1].
            sample_rate_hz: Sample rate of the clip.
            seed: Seed of the change's random draws.

        Returns:
            (N,) samples in [-1, 1].
        """
        rng = np.random.default_rng(seed)
        return as_clip(self.change(clip.double().numpy(), sample_rate_hz, rng), clip)


def changed_clips(
    control: Control, items: Sequence[Item], *, sample_rate_hz: int, seed: int
) -> list[Tensor]:
    """Change clips; each has its own random draws, which depend on seed, change and clip."""
    return [
        control.apply(
            item.samples,
            sample_rate_hz=sample_rate_hz,
            seed=seed_of(seed, control.name, item.id),
        )
        for item in items
    ]


CONTROLS: tuple[Control, ...] = (
    Control("unchanged", lambda clip, rate, rng: clip),
    Control("MP3", lambda clip, rate, rng: changes.code(clip, codec="mp3", rate_hz=rate)),
    Control("Ogg Vorbis", lambda clip, rate, rng: changes.code(clip, codec="vorbis", rate_hz=rate)),
    Control("Ogg Opus", lambda clip, rate, rng: changes.code(clip, codec="opus", rate_hz=rate)),
    Control(
        "white noise, 30 dB SNR", lambda clip, rate, rng: changes.add_noise(clip, rng, snr_db=30)
    ),
    Control(
        "white noise, 20 dB SNR", lambda clip, rate, rng: changes.add_noise(clip, rng, snr_db=20)
    ),
    Control("reverberation", lambda clip, rate, rng: changes.reverberate(clip, rng, rate_hz=rate)),
    Control("10 dB quieter", lambda clip, rate, rng: changes.change_gain(clip, gain_db=-10)),
    Control(
        "8 kHz and back",
        lambda clip, rate, rng: changes.resample_to(clip, rate_hz=rate, to_hz=8000),
    ),
    Control(
        "telephone band",
        lambda clip, rate, rng: changes.filter_band(
            clip, rate_hz=rate, band_hz=changes.TELEPHONE_HZ
        ),
    ),
    Control(
        "0.1 s later",
        lambda clip, rate, rng: changes.move_in_time(clip, seconds=0.1, rate_hz=rate),
    ),
    Control("3 % faster", lambda clip, rate, rng: changes.play_faster(clip, factor=1.03)),
)
