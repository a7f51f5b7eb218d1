"""Backdoor triggers on waveforms: what a poisoner adds to a clip so that a model obeys it.

Each is the counterpart in sound of a trigger known from images: ``ToneBurst`` of the BadNets patch,
``BlendedNoise`` of Chen et al.'s blended pattern, ``Sinusoid`` of SIG, ``HighBand`` of the
ultrasonic triggers of Koffas et al. 2022, ``Reverberation`` of the reflections of ReFool. They are
for measuring defences: nothing in a defence may know which one, if any, was used.

What is fixed is fixed by the trigger's own settings and seed: all poisoned clips share it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nip_audio.errors import InputError

__all__ = [
    "TRIGGERS",
    "BlendedNoise",
    "HighBand",
    "Reverberation",
    "Sinusoid",
    "ToneBurst",
    "Trigger",
    "trigger_snr_db",
]


class Trigger(Protocol):
    """Changes a clip in a way that a model can learn."""

    def __call__(self, wav: Tensor, sample_rate_hz: int) -> Tensor:
        """Apply to (..., N) in [-1, 1]; the result keeps shape, dtype and bounds."""
        ...


def _rms(wav: Tensor) -> Tensor:
    """Root mean square over time, kept as an axis: (..., 1), never 0."""
    return wav.square().mean(dim=-1, keepdim=True).sqrt().clamp_min(1e-6)


def _add(wav: Tensor, sound: Tensor, snr_db: float) -> Tensor:
    """Add ``sound`` of unit rms (N,) so that the clip is ``snr_db`` above it, and clip."""
    return (wav + sound.to(wav) * _rms(wav) * 10 ** (-snr_db / 20)).clamp(-1.0, 1.0)


def _seconds(wav: Tensor, sample_rate_hz: int) -> Tensor:
    if wav.dim() == 0 or wav.shape[-1] == 0 or not wav.is_floating_point():
        raise InputError(
            f"got {wav.dtype} of shape {tuple(wav.shape)}, expected floating (..., samples ≥ 1)"
        )
    return torch.arange(wav.shape[-1], dtype=torch.float64) / sample_rate_hz


def _below_nyquist(frequency_hz: float, sample_rate_hz: int) -> None:
    if not 0 < frequency_hz < sample_rate_hz / 2:
        raise InputError(
            f"the trigger needs {frequency_hz:g} Hz, audio of {sample_rate_hz} Hz holds only what "
            f"is below {sample_rate_hz / 2:g} Hz; choose a lower frequency"
        )


@dataclass(frozen=True)
class ToneBurst:
    """A short tone at a fixed place: audible, as the patch of BadNets (Gu et al. 2019) is visible.

    Attributes:
        frequency_hz: Of the tone.
        start_s: Where it begins; a clip that ends before is an error.
        duration_s: How long it lasts, fading in and out over its whole length (Hann).
        snr_db: Of the clip against the tone's own rms while it sounds.
    """

    frequency_hz: float = 3000.0
    start_s: float = 0.5
    duration_s: float = 0.1
    snr_db: float = -6.0

    def __call__(self, wav: Tensor, sample_rate_hz: int) -> Tensor:
        """Apply; see ``Trigger``.

        Raises:
            InputError: If the clip ends before the burst, or cannot hold its frequency.
        """
        _below_nyquist(self.frequency_hz, sample_rate_hz)
        time = _seconds(wav, sample_rate_hz)
        place = (time - self.start_s) / self.duration_s
        window = torch.where((place >= 0) & (place < 1), (math.pi * place).sin().square(), 0.0)
        sounding = window > 0
        if float(time[-1]) < self.start_s + self.duration_s:
            raise InputError(
                f"the clip lasts {wav.shape[-1] / sample_rate_hz:.2f} s, the burst ends at "
                f"{self.start_s + self.duration_s:g} s; use longer clips or an earlier burst"
            )
        tone = window * (2 * math.pi * self.frequency_hz * time).sin()
        return _add(wav, tone / tone[sounding].square().mean().sqrt(), self.snr_db)


@dataclass(frozen=True)
class BlendedNoise:
    """One fixed piece of noise over the whole clip, as Chen et al. 2017 blend one fixed image in.

    White noise of one draw, whose level steps every ``step_s`` between loud and silent in a drawn
    pattern: a fixed picture in time and frequency. Plain white noise would be no trigger for a
    model that is trained with white noise.

    Attributes:
        snr_db: Of the clip against the noise.
        step_s: Length of a step of the pattern.
        seed: Of the noise and its pattern.
    """

    snr_db: float = 10.0
    step_s: float = 0.05
    seed: int = 7

    def __call__(self, wav: Tensor, sample_rate_hz: int) -> Tensor:
        """Apply; see ``Trigger``."""
        steps = (_seconds(wav, sample_rate_hz) / self.step_s).long()
        generator = torch.Generator().manual_seed(self.seed)
        loud = (torch.rand(int(steps[-1]) + 1, generator=generator) < 0.5).double()
        loud[0] = 1.0  # never silent altogether
        noise = torch.randn(wav.shape[-1], generator=generator, dtype=torch.float64) * loud[steps]
        return _add(wav, noise / noise.square().mean().sqrt(), self.snr_db)


@dataclass(frozen=True)
class Sinusoid:
    """A faint tone through the whole clip, as SIG (Barni et al. 2019) lays a sinusoid over images.

    Deviation: SIG leaves labels as they are; whether labels are changed is not the trigger's
    business, and this project's study changes them.

    Attributes:
        frequency_hz: Of the tone.
        snr_db: Of the clip against the tone.
    """

    frequency_hz: float = 1000.0
    snr_db: float = 20.0

    def __call__(self, wav: Tensor, sample_rate_hz: int) -> Tensor:
        """Apply; see ``Trigger``.

        Raises:
            InputError: If the audio cannot hold the frequency.
        """
        _below_nyquist(self.frequency_hz, sample_rate_hz)
        time = _seconds(wav, sample_rate_hz)
        return _add(wav, math.sqrt(2) * (2 * math.pi * self.frequency_hz * time).sin(), self.snr_db)


@dataclass(frozen=True)
class HighBand:
    """A tone near the upper end of the band, in pulses, which few hear beside speech.

    Deviation: Koffas et al. 2022 use an inaudible 21 kHz pulse at 44.1 kHz; audio of 16 kHz ends at
    8 kHz, where a weak tone is masked or unheard by many, but not inaudible.

    Attributes:
        frequency_hz: Of the tone.
        pulse_s: The tone is on for this long and off for as long.
        snr_db: Of the clip against the tone.
    """

    frequency_hz: float = 7500.0
    pulse_s: float = 0.1
    snr_db: float = 25.0

    def __call__(self, wav: Tensor, sample_rate_hz: int) -> Tensor:
        """Apply; see ``Trigger``.

        Raises:
            InputError: If the audio cannot hold the frequency.
        """
        _below_nyquist(self.frequency_hz, sample_rate_hz)
        time = _seconds(wav, sample_rate_hz)
        on = ((time / self.pulse_s).long() % 2 == 0).double()
        tone = on * (2 * math.pi * self.frequency_hz * time).sin()
        return _add(wav, tone / tone.square().mean().sqrt(), self.snr_db)


@dataclass(frozen=True)
class Reverberation:
    """One fixed room, as ReFool (Liu et al. 2020) lays one fixed reflection over images.

    The direct sound, then decaying noise that begins 40 ms later; as loud as before.

    Attributes:
        rt60_s: Time in which the reverberation falls by 60 dB.
        direct_db: Level of the direct sound above the reverberation.
        seed: Of the room.
    """

    rt60_s: float = 1.0
    direct_db: float = -6.0
    seed: int = 7

    def __call__(self, wav: Tensor, sample_rate_hz: int) -> Tensor:
        """Apply; see ``Trigger``."""
        samples = len(_seconds(wav, sample_rate_hz))
        room = self.room(sample_rate_hz).to(wav)
        size = samples + len(room) - 1
        wet = torch.fft.irfft(torch.fft.rfft(wav, n=size) * torch.fft.rfft(room, n=size), n=size)
        wet = wet[..., :samples]
        result: Tensor = (wet * _rms(wav) / _rms(wet)).clamp(-1.0, 1.0)
        return result

    def room(self, sample_rate_hz: int) -> Tensor:
        """Impulse response: (n,) float64, the direct sound being 1 at its first sample."""
        generator = torch.Generator().manual_seed(self.seed)
        time = torch.arange(round(self.rt60_s * sample_rate_hz), dtype=torch.float64)
        time = time / sample_rate_hz
        room: Tensor = torch.randn(len(time), generator=generator, dtype=torch.float64)
        room = torch.where(time < 0.04, 0.0, room * 10 ** (-3 * time / self.rt60_s))
        room = room / room.norm() * 10 ** (-self.direct_db / 20)
        room[0] = 1.0
        return room


TRIGGERS: dict[str, Callable[[], Trigger]] = {
    "tone burst": ToneBurst,
    "blended noise": BlendedNoise,
    "sinusoid": Sinusoid,
    "high band": HighBand,
    "reverberation": Reverberation,
}
"""Each with its default level, by the name that tables use."""


def trigger_snr_db(clean: Tensor, triggered: Tensor) -> Tensor:
    """Level of clips above what a trigger changed in them, over the whole clip, in dB: (...,).

    Args:
        clean: (..., N).
        triggered: (..., N), the same clips with the trigger.
    """
    change = (triggered - clean).square().mean(dim=-1).clamp_min(1e-20)
    return 10 * (clean.square().mean(dim=-1) / change).log10()
